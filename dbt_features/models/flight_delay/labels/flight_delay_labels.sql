-- Labels that became known in the window of this build: as_of + horizon lies in it. One row per feature row; the label
-- is 1 if the flight arrived at least 15 minutes late, and missing if it was cancelled or diverted.
{{ config(materialized="incremental", pre_hook="{{ replace_window('known_at') }}") }}

select
    features.flight_id,
    features.as_of,
    features.as_of + {{ horizon() }} as known_at,
    flights.is_late as label
from {{ ref('flight_delay_features') }} as features
left join {{ ref('stg_flights') }} as flights on features.flight_id = flights.flight_id
where
    not features.restated
    and {{ in_window('features.as_of + ' ~ horizon()) }}
