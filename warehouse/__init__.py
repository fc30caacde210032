"""Storage: fields, tables, immutable dataset versions, the call ledger, lineage.

It knows no model and no flow.
"""
