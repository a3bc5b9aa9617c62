//! One attempt at one run of a schedule, and what comes of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use capabilities::logs::Level;
use capabilities::schedules::ScheduleSpec;
use functions::{Called, Tick};
use kernel::{CallId, Env, Result, Timestamp};
use store::Firing;

use super::{Clock, LEASE, RENEWED};

/// How long is waited before each attempt after the first.
const PAUSES: [Duration; 3] = [Duration::from_secs(10), Duration::from_secs(60), Duration::from_secs(300)];

impl Clock {
    pub(super) async fn run(&self, env: &Env, spec: &ScheduleSpec, firing: &Firing) -> Result<()> {
        let (id, begun) = (CallId::new(), Instant::now());
        let asked = self.asked(env, spec, firing, id);
        tokio::pin!(asked);
        let outcome = loop {
            tokio::select! {
                outcome = &mut asked => break outcome,
                () = tokio::time::sleep(RENEWED) => {
                    let renewed = self.schedules().renew(firing, Timestamp::now().plus(LEASE)).await;
                    // One that cannot be asked for now may be there for the next renewal.
                    if matches!(renewed, Ok(false)) {
                        return Ok(());
                    }
                }
            }
        };
        let (name, took) = (&firing.of.name, begun.elapsed().as_millis());
        let Err(why) = outcome else {
            self.schedules().over(firing, &format!("ok, in {took} ms")).await?;
            self.say(env, Level::Info, format!("the schedule {name} ran in {took} ms"), name, spec, Some(id));
            return Ok(());
        };
        let why = self.platform.masks.cover(env.id(), &why).into_owned();
        let pause = usize::try_from(firing.attempt - 1)
            .ok()
            .and_then(|at| PAUSES[..usize::from(spec.retries)].get(at));
        match pause {
            Some(pause) => {
                let at = Timestamp::now().plus(*pause);
                self.schedules().again(firing, at, &format!("failed, again at {at}: {why}")).await?;
                let message = format!("the schedule {name} has failed, and is tried again at {at}: {why}");
                self.say(env, Level::Error, message, name, spec, Some(id));
            }
            None => {
                self.schedules().over(firing, &format!("failed: {why}")).await?;
                self.say(
                    env,
                    Level::Error,
                    format!("the schedule {name} has failed: {why}"),
                    name,
                    spec,
                    Some(id),
                );
            }
        }
        Ok(())
    }

    /// Runs the function; else why it has failed.
    async fn asked(&self, env: &Env, spec: &ScheduleSpec, firing: &Firing, id: CallId) -> Result<(), String> {
        let live = self.platform.releases.committed(env).await.map_err(|error| error.to_string())?;
        let function = live.as_ref().and_then(|live| live.functions.get(&spec.function));
        let (Some(live), Some(function)) = (&live, function) else {
            return Err(format!("there is no function {}", spec.function));
        };
        let called = Called {
            env: env.clone(),
            name: spec.function.clone(),
            function: Arc::clone(function),
            variables: Arc::clone(&live.variables),
        };
        let tick = Tick {
            name: &firing.of.name,
            cron: &spec.cron,
            at: firing.of.at,
            attempt: firing.attempt,
            payload: spec.body(),
        };
        let ran = self.platform.functions.run(&called, tick.asking(id.to_string())).await;
        ran.map_err(|in_vain| in_vain.why)
    }
}
