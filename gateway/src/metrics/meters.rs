//! What is counted while it happens: calls of tools and requests.

use std::time::{Duration, Instant};

use axum::response::Response;
use http::StatusCode;
use kernel::{Code, LimitScope, Timestamp};
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry, Result};

use super::catalogue::{Metric, RATE_LIMITED, REQUEST_SECONDS, REQUESTS, TOOL_CALLS, TOOL_SECONDS};
use super::doors::Door;

/// Where the buckets of durations end, in seconds.
const BUCKETS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

/// The classes of statuses.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// The limits of apps and their visitors. Those of credentials and tenants are counted where calls are admitted.
const LIMITS_OF_APPS: [LimitScope; 5] = [
    LimitScope::Environment,
    LimitScope::User,
    LimitScope::Route,
    LimitScope::Address,
    LimitScope::Connection,
];

/// What is counted while it happens.
pub struct Meters {
    /// All of it.
    pub(super) counted: Registry,
    /// When the platform has begun.
    pub(super) since: Instant,
    pub(super) started: Timestamp,
    calls: IntCounterVec,
    call_seconds: HistogramVec,
    doors: Vec<Asked>,
    held_up: Vec<(LimitScope, IntCounter)>,
}

/// What was asked of one door.
struct Asked {
    /// By the classes of the answers.
    requests: Vec<IntCounter>,
    seconds: Histogram,
}

impl Meters {
    /// With nothing counted.
    ///
    /// # Errors
    /// Where the catalogue names something twice.
    pub fn new() -> Result<Self> {
        let calls = counters(&TOOL_CALLS)?;
        let call_seconds = durations(&TOOL_SECONDS)?;
        let (requests, seconds) = (counters(&REQUESTS)?, durations(&REQUEST_SECONDS)?);
        let limits = counters(&RATE_LIMITED)?;
        let counted = Registry::new();
        counted.register(Box::new(calls.clone()))?;
        counted.register(Box::new(call_seconds.clone()))?;
        counted.register(Box::new(requests.clone()))?;
        counted.register(Box::new(seconds.clone()))?;
        let doors = Door::ALL.iter().map(|door| -> Result<Asked> {
            let of_class = |class| requests.get_metric_with_label_values(&[door.as_str(), class]);
            let seconds = seconds.get_metric_with_label_values(&[door.as_str()])?;
            Ok(Asked { requests: CLASSES.into_iter().map(of_class).collect::<Result<_>>()?, seconds })
        });
        let held_up = LIMITS_OF_APPS.into_iter().map(|limit| -> Result<_> {
            Ok((limit, limits.get_metric_with_label_values(&[limit.as_str()])?))
        });
        Ok(Self {
            doors: doors.collect::<Result<_>>()?,
            held_up: held_up.collect::<Result<_>>()?,
            counted,
            since: Instant::now(),
            started: Timestamp::now(),
            calls,
            call_seconds,
        })
    }

    /// These tools are there: what they come to is shown from the beginning, so that the first failure is seen as one.
    pub fn tools(&self, names: impl Iterator<Item = &'static str>) {
        for name in names {
            for outcome in ["ok", Code::Internal.as_str()] {
                // As in `called`.
                let _ = self.calls.get_metric_with_label_values(&[name, outcome]);
            }
        }
    }

    /// A call of a tool has ended.
    pub fn called(&self, tool: &'static str, error: Option<Code>, took: Duration) {
        let outcome = error.map_or("ok", Code::as_str);
        // Neither fails: the labels are those of the catalogue.
        if let Ok(calls) = self.calls.get_metric_with_label_values(&[tool, outcome]) {
            calls.inc();
        }
        if let Ok(seconds) = self.call_seconds.get_metric_with_label_values(&[tool]) {
            seconds.observe(took.as_secs_f64());
        }
    }

    /// A request was answered.
    pub fn answered(&self, door: Door, response: &Response, took: Duration) {
        let Some(asked) = self.doors.get(door as usize) else { return };
        asked.seconds.observe(took.as_secs_f64());
        let class = usize::from(response.status().as_u16() / 100);
        if let Some(requests) = class.checked_sub(1).and_then(|class| asked.requests.get(class)) {
            requests.inc();
        }
        if response.status() == StatusCode::TOO_MANY_REQUESTS
            && let Some(limit) = response.extensions().get::<LimitScope>()
            && let Some((_, held_up)) = self.held_up.iter().find(|(known, _)| known == limit)
        {
            held_up.inc();
        }
    }

    /// How many requests the limits of apps have held up.
    pub(super) fn held_up(&self) -> impl Iterator<Item = (LimitScope, u64)> {
        self.held_up.iter().map(|(limit, count)| (*limit, count.get()))
    }
}

fn counters(metric: &Metric) -> Result<IntCounterVec> {
    IntCounterVec::new(Opts::new(metric.name, metric.about()), &metric.label_names())
}

fn durations(metric: &Metric) -> Result<HistogramVec> {
    let opts = HistogramOpts::new(metric.name, metric.about()).buckets(BUCKETS.to_vec());
    HistogramVec::new(opts, &metric.label_names())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[test]
    fn the_limits_of_apps_and_those_of_credentials_are_all_but_the_platforms() {
        let counted = LIMITS_OF_APPS.map(LimitScope::as_str);
        for own in [LimitScope::Key, LimitScope::Token, LimitScope::Tenant, LimitScope::Platform] {
            assert!(!counted.contains(&own.as_str()));
        }
    }

    #[test]
    fn a_request_counts_at_its_door_by_the_class_of_its_answer_and_by_the_limit_that_held_it_up() {
        let meters = Meters::new().unwrap();
        let answer = |status: u16, limit: Option<LimitScope>| {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            if let Some(limit) = limit {
                response.extensions_mut().insert(limit);
            }
            response
        };
        let took = Duration::from_millis(3);
        for (door, status, limit) in [
            (Door::Rows, 200, None),
            (Door::Rows, 206, None),
            (Door::Rows, 429, Some(LimitScope::Route)),
            // It was counted when the call was refused.
            (Door::Tools, 429, Some(LimitScope::Key)),
            (Door::Realtime, 101, None),
            (Door::Apps, 999, None),
        ] {
            meters.answered(door, &answer(status, limit), took);
        }
        let of = |door: Door| {
            let asked = &meters.doors[door as usize];
            let by_class: Vec<u64> = asked.requests.iter().map(IntCounter::get).collect();
            (by_class, asked.seconds.get_sample_count())
        };
        assert_eq!(of(Door::Rows), (vec![0, 2, 0, 1, 0], 3));
        assert_eq!(of(Door::Tools), (vec![0, 0, 0, 1, 0], 1));
        assert_eq!(of(Door::Realtime), (vec![1, 0, 0, 0, 0], 1));
        assert_eq!(of(Door::Apps), (vec![0; 5], 1));
        let held_up: Vec<_> = meters.held_up().filter(|(_, count)| *count > 0).collect();
        assert_eq!(held_up, [(LimitScope::Route, 1)]);
    }

    /// What every request pays: far below a microsecond or two where it is optimised.
    #[test]
    fn counting_costs_next_to_nothing() {
        const TIMES: u32 = 20_000;
        let meters = Meters::new().unwrap();
        let response = Response::new(Body::empty());
        let begun = Instant::now();
        for _ in 0..TIMES {
            meters.answered(Door::Tools, &response, Duration::from_millis(3));
            meters.called("db_query", None, Duration::from_millis(3));
        }
        let each = begun.elapsed() / TIMES;
        assert!(each < Duration::from_micros(50), "{each:?} for a request and a call");
        assert_eq!(meters.calls.with_label_values(&["db_query", "ok"]).get(), u64::from(TIMES));
    }
}
