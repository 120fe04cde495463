-- The newest as_of is the end of the newest period built: no label may need anything later.
select
    user_id,
    as_of,
    known_at
from {{ ref('repurchase_labels') }}
where known_at > (select max(features.as_of) from {{ ref('repurchase_features') }} as features)
