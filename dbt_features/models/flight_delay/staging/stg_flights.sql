-- One row per flight, from the version of each landed day that this build may know (macros/landed.sql) and only from
-- days whose flights can count in its window: 28 days of outcomes, the newest of them a horizon old.
select
    carrier || '-' || flight || '-' || origin || '-' || strftime(make_date(year, month, day), '%Y-%m-%d') as flight_id,
    carrier,
    flight as flight_number,
    origin,
    dest as destination,
    tailnum as tail_number,
    make_date(year, month, day) as departure_date,
    sched_dep_time // 100 * 60 + sched_dep_time % 100 as minute_of_day,
    -- Both clocks are local, so this is the duration plus the difference of the time zones.
    (sched_arr_time // 100 * 60 + sched_arr_time % 100 - minute_of_day + 1440) % 1440 as sched_clock_minutes,
    distance,
    (time_hour at time zone 'UTC') + to_minutes(sched_dep_time % 100) as scheduled_at,
    scheduled_at - interval 2 hours as as_of,
    dep_delay as departure_delay_minutes,
    scheduled_at + to_minutes(dep_delay) as departed_at,
    as_of + {{ horizon() }} as outcome_known_at,
    arr_delay >= 15 as is_late,
    period,
    version,
    case when version > 1 then landed_at at time zone 'UTC' end as corrected_at
from {{ source('raw_flight_delay', 'flights') }}
where
    period >= strftime({{ period_start() }} - interval 28 days - {{ horizon() }}, '%Y-%m-%d')
    and period <= strftime({{ period_end() }} - interval 1 microsecond, '%Y-%m-%d')
    and {{ in_force(source('raw_flight_delay', 'flights')) }}
