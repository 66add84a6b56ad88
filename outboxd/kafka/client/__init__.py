"""What all clients of Kafka here share: their configuration, how they are made and let go, and why no broker answers.

`client_config` (what the guarantees need, with the user's properties), `client_files` and `consumers`; `kept_admin` is
what questions are asked with; `producer_maker` makes a producer, or a stand-in while none can be made, and
`former_producers` lets one go. `cluster_failure` and `connection_remedies` say why no broker answers and what to
do; `codes` and `answers` take what the client raises or returns. `lots` run questions to the cluster on a thread that
lives only while there are any.
"""
