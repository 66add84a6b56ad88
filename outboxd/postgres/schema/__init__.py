"""Names and versions of what stands in the database. The schema is configurable, so it is quoted wherever it stands
(`names`, `sql_text`); `revisions` are what a database has and this version needs, `tables` what the migrations
make, and `finite` takes times that people may have set to infinity.
"""
