-- One row per airport and hour, from the version of each landed day that this build may know, as far back as it counts.
select
    origin,
    time_hour at time zone 'UTC' as observed_at,
    humid,
    wind_speed,
    wind_gust,
    precip,
    visib,
    period,
    version,
    case when version > 1 then landed_at at time zone 'UTC' end as corrected_at
from {{ source('raw_flight_delay', 'weather') }}
where
    period >= strftime({{ period_start() }} - interval 1 day, '%Y-%m-%d')
    and period <= strftime({{ period_end() }} - interval 1 microsecond, '%Y-%m-%d')
    and {{ in_force(source('raw_flight_delay', 'weather')) }}
