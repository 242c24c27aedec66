"""Every table of Salon, by the part of the DAG that writes it: one frozen row dataclass each.

A field's comment gives its unit or range. `infra.store.tables` turns a class into its Arrow schema; the schema in a file
must equal it. Ids are content ids (`infra.identity.row_id`): a hash of everything that determines the row, led by its group
(who made it, then the prompt), so that neighbours in a table are computed by one model and belong to neighbouring prompts.
"""
