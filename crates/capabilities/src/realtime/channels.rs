//! Channels: who is in them, what they say to each other, and what they see of each other.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use kernel::{Code, Error, Result};
use serde_json::{Map, Value, json};

use super::hub::{Hub, Id};
use super::outbox::{Frame, Outbox};
use super::spec::{Act, is_name};
use crate::access::{Guest, Subject};
use crate::rows::App;

/// What a member shows of itself.
pub(super) type Shown = Option<Map<String, Value>>;

/// The channels of an environment in which somebody is.
#[derive(Default)]
pub(super) struct Channels {
    members: HashMap<String, BTreeMap<Id, Member>>,
    /// Which of them each connection is in.
    of: HashMap<Id, BTreeSet<String>>,
}

#[derive(Clone)]
pub(super) struct Member {
    /// What the others call this connection.
    pub name: String,
    pub outbox: Arc<Outbox>,
    pub subject: Subject,
    /// None where it is not to be seen.
    pub shown: Shown,
}

impl Member {
    fn seen(&self) -> Option<Value> {
        let state = self.shown.as_ref()?;
        Some(json!({ "id": self.name, "user": self.subject.uid(), "state": state }))
    }
}

impl Channels {
    /// Lets a connection in, and tells it who is there.
    ///
    /// # Errors
    /// `conflict` where it is in already, `too_large` where there are too many.
    pub fn join(&mut self, channel: &str, id: Id, member: Member, most: (usize, usize)) -> Result<()> {
        if self.of.get(&id).map_or(0, BTreeSet::len) >= most.0 {
            return Err(Error::new(
                Code::TooLarge,
                format!("a connection is in at most {} channels", most.0),
            ));
        }
        if self.of.get(&id).is_some_and(|own| own.contains(channel)) {
            return Err(Error::new(Code::Conflict, "this connection is in the channel already"));
        }
        if self.members.get(channel).map_or(0, BTreeMap::len) >= most.1 {
            return Err(Error::new(
                Code::TooLarge,
                format!("at most {} can be in a channel at once", most.1),
            ));
        }
        let members = self.members.entry(channel.to_owned()).or_default();
        let seen: Vec<Value> = members.values().filter_map(Member::seen).collect();
        let joined = json!({ "type": "joined", "channel": channel, "id": member.name, "members": seen });
        member.outbox.push(frame(&joined));
        if let Some(member) = member.seen() {
            announce(members, channel, "join", &member, id);
        }
        members.insert(id, member);
        self.of.entry(id).or_default().insert(channel.to_owned());
        Ok(())
    }

    /// Lets a connection out; whether it was in.
    pub fn leave(&mut self, channel: &str, id: Id) -> bool {
        let Some(members) = self.members.get_mut(channel) else { return false };
        let Some(gone) = members.remove(&id) else { return false };
        if let Some(own) = self.of.get_mut(&id) {
            own.remove(channel);
            if own.is_empty() {
                self.of.remove(&id);
            }
        }
        if let Some(member) = gone.seen() {
            announce(members, channel, "leave", &member, id);
        }
        if members.is_empty() {
            self.members.remove(channel);
        }
        true
    }

    /// Lets a connection out of everything.
    pub fn leave_all(&mut self, id: Id) {
        let channels = self.of.get(&id).cloned().unwrap_or_default();
        for channel in channels {
            self.leave(&channel, id);
        }
    }

    /// Changes what a connection shows of itself.
    ///
    /// # Errors
    /// `conflict` where it is not in.
    pub fn show(&mut self, channel: &str, id: Id, shown: Shown) -> Result<()> {
        let members = self.members.get_mut(channel).ok_or_else(outside)?;
        let member = members.get_mut(&id).ok_or_else(outside)?;
        let before = member.seen();
        member.shown = shown;
        let told = match (before, member.seen()) {
            (None, Some(now)) => ("join", now),
            (Some(_), Some(now)) => ("update", now),
            (Some(before), None) => ("leave", before),
            (None, None) => return Ok(()),
        };
        announce(members, channel, told.0, &told.1, id);
        Ok(())
    }

    /// Says something to everybody in the channel but the connection that says it; to how many.
    pub fn broadcast(&self, channel: &str, from: Option<Id>, message: &Value) -> usize {
        let Some(members) = self.members.get(channel) else { return 0 };
        let frame = frame(message);
        let others = members.iter().filter(|(id, _)| Some(**id) != from);
        others.map(|(_, member)| member.outbox.push(frame.clone())).count()
    }

    /// Who is where: the connections of each in each channel.
    fn all(&self) -> Vec<(String, Subject, Vec<Id>)> {
        let mut all: BTreeMap<(&str, String), (&Subject, Vec<Id>)> = BTreeMap::new();
        for (channel, members) in &self.members {
            for (id, member) in members {
                let who = (channel.as_str(), format!("{:?}", member.subject));
                all.entry(who).or_insert_with(|| (&member.subject, Vec::new())).1.push(*id);
            }
        }
        all.into_iter()
            .map(|((channel, _), (subject, ids))| (channel.to_owned(), subject.clone(), ids))
            .collect()
    }

    /// Puts a connection out that may not be in any more.
    fn expel(&mut self, channel: &str, id: Id) {
        let Some(member) = self.members.get(channel).and_then(|members| members.get(&id)) else { return };
        let left = json!({ "type": "left", "channel": channel, "reason": "forbidden" });
        member.outbox.push(frame(&left));
        self.leave(channel, id);
    }
}

/// Tells the others what is new of a member.
fn announce(members: &BTreeMap<Id, Member>, channel: &str, event: &str, member: &Value, from: Id) {
    let message = json!({ "type": "presence", "channel": channel, "event": event, "member": member });
    let frame = frame(&message);
    for (_, other) in members.iter().filter(|(id, _)| **id != from) {
        other.outbox.push(frame.clone());
    }
}

fn frame(message: &Value) -> Frame {
    Frame { at: None, json: message.to_string().into() }
}

pub(super) fn outside() -> Error {
    Error::new(Code::Conflict, "this connection is not in the channel").hint("join it first")
}

impl Hub {
    /// Holds that somebody may do this in a channel.
    ///
    /// # Errors
    /// `forbidden`, also where there is no such channel.
    pub async fn permit(&self, app: &App, act: Act, channel: &str, subject: &Subject) -> Result<()> {
        let refused = || {
            let what = match act {
                Act::Join => "joining",
                Act::Send => "sending to",
            };
            Error::new(Code::Forbidden, format!("the rules do not allow {what} this channel"))
                .field("/channel")
        };
        if !is_name(channel) {
            return Err(Error::invalid("/channel", "this is not the name of a channel"));
        }
        let sql = app.realtime.statement(act, channel, subject).ok_or_else(refused)?;
        let rows = self.services.databases.read_rows(&self.env, sql.text, sql.params, 1_000).await?;
        if rows.iter().len() == 1 { Ok(()) } else { Err(refused()) }
    }

    /// Puts those out of channels who may not be in them any more.
    pub async fn judge_members(&self, app: &App) {
        let all = self.channels(|channels| channels.all());
        for (channel, subject, ids) in all {
            match self.permit(app, Act::Join, &channel, &subject).await {
                Ok(()) => {}
                Err(error) if error.code() == Code::Forbidden => {
                    self.channels(|channels| ids.into_iter().for_each(|id| channels.expel(&channel, id)));
                }
                Err(error) => {
                    tracing::debug!(env.id = %self.env.id(), error = error.chain(), "a member was not judged")
                }
            }
        }
    }

    /// The connection's guest as a member.
    pub fn member(name: &str, outbox: &Arc<Outbox>, guest: &Guest, shown: Shown) -> Member {
        Member { name: name.to_owned(), outbox: Arc::clone(outbox), subject: guest.subject().clone(), shown }
    }
}
