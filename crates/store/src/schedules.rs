//! When schedules of environments are due, and who runs them: of many programs at once one does.

use kernel::{EnvId, TenantId, Timestamp};
use sqlx::any::AnyRow;

use crate::rows::{number, parsed, text, text_or_null, time, time_or_null};
use crate::{Result, Store};

/// When a schedule's time comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// Its tenant.
    pub tenant: TenantId,
    /// The environment.
    pub env: EnvId,
    /// What the schedule is called there.
    pub name: String,
    /// The time.
    pub at: Timestamp,
}

/// What is known of a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleRow {
    /// What it is called.
    pub name: String,
    /// When it is time, as it is written.
    pub cron: String,
    /// In which time zone.
    pub timezone: String,
    /// When it is time next; none where it never is again.
    pub due: Option<Timestamp>,
    /// The time that it ran for last, and what has come of that.
    pub last: Option<(Timestamp, String)>,
}

/// A run of a schedule that is not over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firing {
    /// The schedule, and the time that it runs for.
    pub of: Due,
    /// Which attempt this is, from 1.
    pub attempt: i64,
    /// Whether somebody runs it, or has died over it.
    pub running: bool,
    /// When it is tried again, or whoever runs it is held to be dead.
    pub due: Timestamp,
}

/// What a run does beside one that is not over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    /// It does not begin.
    Nothing,
    /// It runs.
    Runs,
}

/// What has come of the wish to run a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fired {
    /// It is the caller's to run.
    Here(Firing),
    /// Its last run is not over.
    Overlaps,
    /// Another has it, or it is not due any more.
    Gone,
}

/// The schedules.
pub struct Schedules<'a>(pub(crate) &'a Store);

const FIRING: &str = "SELECT e.tenant AS tenant, f.env AS env, f.name AS name, f.tick AS at, f.attempt AS attempt, \
    f.running AS running, f.due AS due FROM firings f JOIN environments e ON e.id = f.env";

impl Schedules<'_> {
    /// Has these be all schedules of an environment, as (name, cron, time zone, when it is time next). What is there with the
    /// same times stays as it is. Nothing where the environment is not a ready one.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn settle(&self, env: EnvId, wanted: &[ScheduleRow]) -> Result<()> {
        let is = |it: &ScheduleRow, other: &ScheduleRow| {
            (&it.name, &it.cron, &it.timezone) == (&other.name, &other.cron, &other.timezone)
        };
        let there = self.list(env).await?;
        if there.len() == wanted.len() && wanted.iter().all(|it| there.iter().any(|other| is(it, other))) {
            return Ok(());
        }
        let mut write = self.0.begin_write().await?;
        let ready = sqlx::query("UPDATE environments SET state = state WHERE id = $1 AND state = 'ready'")
            .bind(env.to_string())
            .execute(write.connection())
            .await?;
        if ready.rows_affected() == 0 {
            return Ok(());
        }
        for gone in there.iter().filter(|it| !wanted.iter().any(|other| other.name == it.name)) {
            sqlx::query("DELETE FROM schedules WHERE env = $1 AND name = $2")
                .bind(env.to_string())
                .bind(gone.name.as_str())
                .execute(write.connection())
                .await?;
        }
        for it in wanted {
            sqlx::query(
                "INSERT INTO schedules (env, name, cron, timezone, due) VALUES ($1, $2, $3, $4, $5) \
                 ON CONFLICT (env, name) DO UPDATE SET cron = excluded.cron, timezone = excluded.timezone, \
                 due = excluded.due \
                 WHERE schedules.cron <> excluded.cron OR schedules.timezone <> excluded.timezone",
            )
            .bind(env.to_string())
            .bind(it.name.as_str())
            .bind(it.cron.as_str())
            .bind(it.timezone.as_str())
            .bind(it.due.map(Timestamp::as_micros))
            .execute(write.connection())
            .await?;
        }
        write.commit().await
    }

    /// The schedules of an environment, by name.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn list(&self, env: EnvId) -> Result<Vec<ScheduleRow>> {
        let sql =
            "SELECT name, cron, timezone, due, ran, outcome FROM schedules WHERE env = $1 ORDER BY name";
        let rows = sqlx::query(sql).bind(env.to_string()).fetch_all(self.0.reader()).await?;
        rows.iter().map(schedule).collect()
    }

    /// Those of ready environments that are due, the longest waiting first: at most `limit` after this one.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn due(&self, now: Timestamp, after: Option<&Due>, limit: i64) -> Result<Vec<Due>> {
        let sql = "SELECT e.tenant AS tenant, s.env AS env, s.name AS name, s.due AS at \
                   FROM schedules s JOIN environments e ON e.id = s.env \
                   WHERE s.due <= $1 AND e.state = 'ready' AND (s.due > $2 OR (s.due = $2 AND \
                   (s.env > $3 OR (s.env = $3 AND s.name > $4)))) ORDER BY s.due, s.env, s.name LIMIT $5";
        let rows = sqlx::query(sql)
            .bind(now.as_micros())
            .bind(after.map_or(i64::MIN, |it| it.at.as_micros()))
            .bind(after.map(|it| it.env.to_string()).unwrap_or_default())
            .bind(after.map(|it| it.name.clone()).unwrap_or_default())
            .bind(limit)
            .fetch_all(self.0.reader())
            .await?;
        rows.iter().map(due).collect()
    }

    /// When the next one is due, or the next attempt, after `now`.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn soonest(&self, now: Timestamp) -> Result<Option<Timestamp>> {
        let sql = "SELECT MIN(due) AS due FROM (SELECT MIN(due) AS due FROM schedules WHERE due > $1 \
                   UNION ALL SELECT MIN(due) AS due FROM firings WHERE due > $1) AS soonest";
        let row = sqlx::query(sql).bind(now.as_micros()).fetch_one(self.0.reader()).await?;
        time_or_null(&row, "due")
    }

    /// Moves a schedule on to its next time, where it is still due at that one, and nobody runs it for it: of many at once
    /// one does. `outcome` is kept as what has come of the time.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn pass(&self, of: &Due, next: Option<Timestamp>, outcome: &str) -> Result<bool> {
        let mut write = self.0.begin_write().await?;
        let moved = sqlx::query(
            "UPDATE schedules SET due = $4, ran = $3, outcome = $5 WHERE env = $1 AND name = $2 AND due = $3",
        )
        .bind(of.env.to_string())
        .bind(of.name.as_str())
        .bind(of.at.as_micros())
        .bind(next.map(Timestamp::as_micros))
        .bind(outcome)
        .execute(write.connection())
        .await?;
        write.commit().await?;
        Ok(moved.rows_affected() == 1)
    }

    /// Moves a schedule on to its next time, where it is still due at that one, and gives the caller the right to run it for
    /// `tick` until `until`: of many at once one gets it.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn claim(
        &self,
        of: &Due,
        tick: Timestamp,
        next: Option<Timestamp>,
        beside: Beside,
        until: Timestamp,
    ) -> Result<Fired> {
        let mut write = self.0.begin_write().await?;
        let moved = sqlx::query("UPDATE schedules SET due = $4 WHERE env = $1 AND name = $2 AND due = $3")
            .bind(of.env.to_string())
            .bind(of.name.as_str())
            .bind(of.at.as_micros())
            .bind(next.map(Timestamp::as_micros))
            .execute(write.connection())
            .await?;
        if moved.rows_affected() == 0 {
            return Ok(Fired::Gone);
        }
        // Whoever else runs this schedule has had to take the row that this transaction holds.
        let others = sqlx::query("SELECT 1 FROM firings WHERE env = $1 AND name = $2 LIMIT 1")
            .bind(of.env.to_string())
            .bind(of.name.as_str())
            .fetch_optional(write.connection())
            .await?;
        if others.is_some() && beside == Beside::Nothing {
            write.commit().await?;
            return Ok(Fired::Overlaps);
        }
        let made = sqlx::query(
            "INSERT INTO firings (env, name, tick, attempt, running, due) VALUES ($1, $2, $3, 1, 1, $4) \
             ON CONFLICT DO NOTHING",
        )
        .bind(of.env.to_string())
        .bind(of.name.as_str())
        .bind(tick.as_micros())
        .bind(until.as_micros())
        .execute(write.connection())
        .await?;
        write.commit().await?;
        if made.rows_affected() == 0 {
            return Ok(Fired::Gone);
        }
        let of = Due { at: tick, ..of.clone() };
        Ok(Fired::Here(Firing { of, attempt: 1, running: true, due: until }))
    }

    /// Runs of ready environments whose next attempt is due, or that somebody has died over, the longest waiting first.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn waiting(&self, now: Timestamp, after: Timestamp, limit: i64) -> Result<Vec<Firing>> {
        let sql = format!(
            "{FIRING} WHERE f.due <= $1 AND f.due > $2 AND e.state = 'ready' ORDER BY f.due LIMIT $3"
        );
        let query = sqlx::query(sqlx::AssertSqlSafe(sql));
        let query = query.bind(now.as_micros()).bind(after.as_micros()).bind(limit);
        query.fetch_all(self.0.reader()).await?.iter().map(firing).collect()
    }

    /// Takes the next attempt of a run until `until`, where nobody else has: of many at once one gets it.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn take(&self, it: &Firing, until: Timestamp) -> Result<Option<Firing>> {
        let taken = self
            .change(
                "UPDATE firings SET attempt = attempt + 1, running = 1, due = $5 WHERE env = $1 AND name = $2 \
                 AND tick = $3 AND attempt = $4 AND due = $6",
                it,
                Some(until),
                Some(it.due),
            )
            .await?;
        Ok(taken.then(|| Firing { attempt: it.attempt + 1, running: true, due: until, ..it.clone() }))
    }

    /// Says that an attempt goes on; `false` where it is not the caller's any more.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn renew(&self, it: &Firing, until: Timestamp) -> Result<bool> {
        let sql = "UPDATE firings SET due = $5 WHERE env = $1 AND name = $2 AND tick = $3 AND attempt = $4 \
                   AND running = 1";
        self.change(sql, it, Some(until), None).await
    }

    /// Has a run be tried again at `due`, and notes what has come of it until now; `false` where it is not the caller's any
    /// more.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn again(&self, it: &Firing, due: Timestamp, outcome: &str) -> Result<bool> {
        let sql = "UPDATE firings SET running = 0, due = $5 WHERE env = $1 AND name = $2 AND tick = $3 \
                   AND attempt = $4 AND running = 1";
        Ok(self.change(sql, it, Some(due), None).await? && self.note(&it.of, outcome).await?)
    }

    /// Ends a run, and notes what has come of it; `false` where it is not the caller's any more.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn over(&self, it: &Firing, outcome: &str) -> Result<bool> {
        let sql = "DELETE FROM firings WHERE env = $1 AND name = $2 AND tick = $3 AND attempt = $4";
        Ok(self.change(sql, it, None, None).await? && self.note(&it.of, outcome).await?)
    }

    /// Notes what has come of a schedule's time, unless more is known of a later one.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn note(&self, of: &Due, outcome: &str) -> Result<bool> {
        let mut write = self.0.begin_write().await?;
        let sql = "UPDATE schedules SET ran = $3, outcome = $4 \
                   WHERE env = $1 AND name = $2 AND (ran IS NULL OR ran <= $3)";
        sqlx::query(sql)
            .bind(of.env.to_string())
            .bind(of.name.as_str())
            .bind(of.at.as_micros())
            .bind(outcome)
            .execute(write.connection())
            .await?;
        write.commit().await?;
        Ok(true)
    }

    async fn change(
        &self,
        sql: &'static str,
        it: &Firing,
        until: Option<Timestamp>,
        seen: Option<Timestamp>,
    ) -> Result<bool> {
        let mut write = self.0.begin_write().await?;
        let mut query = sqlx::query(sql)
            .bind(it.of.env.to_string())
            .bind(it.of.name.as_str())
            .bind(it.of.at.as_micros())
            .bind(it.attempt);
        for at in [until, seen].into_iter().flatten() {
            query = query.bind(at.as_micros());
        }
        let changed = query.execute(write.connection()).await?;
        write.commit().await?;
        Ok(changed.rows_affected() == 1)
    }
}

fn due(row: &AnyRow) -> Result<Due> {
    Ok(Due {
        tenant: parsed(row, "tenant")?,
        env: parsed(row, "env")?,
        name: text(row, "name")?,
        at: time(row, "at")?,
    })
}

fn firing(row: &AnyRow) -> Result<Firing> {
    Ok(Firing {
        of: due(row)?,
        attempt: number(row, "attempt")?,
        running: number(row, "running")? != 0,
        due: time(row, "due")?,
    })
}

fn schedule(row: &AnyRow) -> Result<ScheduleRow> {
    let (ran, outcome) = (time_or_null(row, "ran")?, text_or_null(row, "outcome")?);
    Ok(ScheduleRow {
        name: text(row, "name")?,
        cron: text(row, "cron")?,
        timezone: text(row, "timezone")?,
        due: time_or_null(row, "due")?,
        last: ran.zip(outcome),
    })
}
