-- Two models are read: `ref` says which of them the asset check belongs to.
{{ config(meta={"dagster": {"ref": {"name": "repurchase_labels"}}}) }}

-- The newest as_of is the end of the newest period built: no label may need anything later.
select
    user_id,
    as_of,
    known_at
from {{ ref('repurchase_labels') }}
where known_at > (select max(features.as_of) from {{ ref('repurchase_features') }} as features)
