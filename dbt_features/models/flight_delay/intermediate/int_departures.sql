-- Departures that can count in the window of this build. A departure is known when it happens.
select
    origin,
    departed_at,
    departure_delay_minutes,
    departure_delay_minutes >= 15 as is_late
from {{ ref('stg_flights') }}
where
    departed_at > {{ period_start() }} - interval 6 hours
    and departed_at <= {{ period_end() }}
