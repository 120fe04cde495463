-- Every order that a feature row counts lies before its as_of and, unless the row is restated, was known by then.
select
    user_id,
    as_of,
    event_time
from {{ ref('repurchase_features') }}
where
    event_time >= as_of
    or recency < 1
    or tenure < recency
    or (not restated and available_at > as_of)
