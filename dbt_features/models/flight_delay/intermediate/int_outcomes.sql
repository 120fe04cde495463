-- Whether flights arrived late. A day after as_of that is certain, whenever the flight arrived; cancelled and diverted
-- flights have no outcome.
select
    flight_id,
    carrier,
    flight_number,
    origin,
    destination,
    outcome_known_at,
    is_late
from {{ ref('stg_flights') }}
where
    is_late is not null
    and outcome_known_at <= {{ period_end() }}
