-- How many flights wait at an airport from each moment on at which that changes. A flight waits from its scheduled
-- departure until it leaves, six hours at most: one that was cancelled leaves no other trace in the history.
with waiting as (

    select
        origin,
        scheduled_at as waits_from,
        least(coalesce(departed_at, 'infinity'), scheduled_at + interval 6 hours) as waits_until
    from {{ ref('stg_flights') }}
    -- Who waited longer ago has left before the window of this build begins.
    where
        scheduled_at > {{ period_start() }} - interval 6 hours
        and scheduled_at <= {{ period_end() }}
        and (departed_at is null or departed_at > scheduled_at)

),

steps as (

    select
        origin,
        waits_from as changed_at,
        1 as step
    from waiting
    union all
    select
        origin,
        waits_until as changed_at,
        -1 as step
    from waiting

),

changes as (

    select
        origin,
        changed_at,
        sum(step) as change
    from steps
    group by origin, changed_at

)

select
    origin,
    changed_at,
    cast(sum(change) over (partition by origin order by changed_at) as bigint) as flights_waiting
from changes
