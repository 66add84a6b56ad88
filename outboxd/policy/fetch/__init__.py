"""What is to be read, and when: `gaps` (ids that were drawn and not seen, until no transaction can bring them),
`pacing` (how soon again), `strides` (how far one statement of a walk goes), `limits`.
"""
