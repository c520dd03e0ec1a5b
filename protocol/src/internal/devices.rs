//! A user's devices: the value of `<uid>` in the buckets `sessions-<shard>`, and who gives way when a class is full.
//!
//! Every change is a read and a compare-and-set of the whole value, and every decision a pure function over it. So of
//! two devices that come in the same moment at two edges, one decides on what the other has written.
//!
//! Whoever is taken out of the value stays in `unsettled` until its edge has said that it is closed, or cannot write
//! any more (`docs/adr/0013-sessions-and-presence.md`). A newcomer is greeted when all of those are settled that have a
//! place in its class: not only those that it displaced itself, for whoever displaced the others may have gone again
//! before their edges answered.

mod policy;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    client::frame::{DeviceClass, Displaced, OtherDevice},
    ids::{DeviceId, Token},
    limits,
};

pub use policy::{ClassPolicy, DevicePolicy, GivesWay};

/// Short names: the value is written for each session that begins and ends.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserDevices {
    #[serde(rename = "d")]
    pub devices: Vec<DeviceEntry>,
    #[serde(rename = "u", default, skip_serializing_if = "Vec::is_empty")]
    pub unsettled: Vec<UnsettledSession>,
    /// When a device was here last whose login is over; milliseconds since 1970.
    #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
    pub left: Option<u64>,
}

/// One installation of a client that has had a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceEntry {
    pub id: DeviceId,
    #[serde(rename = "c")]
    pub class: DeviceClass,
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Name and version of the client.
    #[serde(rename = "a", default, skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// Of the login it came with last.
    #[serde(rename = "f")]
    pub family: Token,
    /// When it took its place in its class: it keeps it while it comes back. Milliseconds since 1970, server time.
    #[serde(rename = "s")]
    pub since: u64,
    /// When it said hello last, or left; likewise.
    #[serde(rename = "t")]
    pub active: u64,
    /// While it is connected.
    #[serde(rename = "x", default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionPlace>,
    /// Who displaced it, until it has a session again.
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    pub displaced: Option<DisplacedBy>,
}

/// Which session, and where: it can be alive only while the edge's lease has this incarnation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SessionPlace {
    #[serde(rename = "id")]
    pub session: Token,
    #[serde(rename = "e")]
    pub edge: Token,
    /// Shared: all sessions of an edge have the same.
    #[serde(rename = "i")]
    pub incarnation: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DisplacedBy {
    #[serde(rename = "d")]
    pub device: DeviceId,
    /// When; milliseconds since 1970.
    #[serde(rename = "t")]
    pub at: u64,
}

/// A session that is out of the value, and whose edge may not know it yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnsettledSession {
    #[serde(rename = "d")]
    pub device: DeviceId,
    #[serde(rename = "c")]
    pub class: DeviceClass,
    #[serde(rename = "p")]
    pub place: SessionPlace,
    /// Since when; milliseconds since 1970.
    #[serde(rename = "t")]
    pub at: u64,
}

/// A device that wants a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceClaim {
    pub device: DeviceId,
    pub class: DeviceClass,
    pub name: Option<String>,
    pub app: Option<String>,
    pub family: Token,
    /// The session it would have.
    pub place: SessionPlace,
    /// The session it had (`hello.session`): it comes back by itself, and displaces nobody.
    pub had: Option<Token>,
    /// When it said hello; milliseconds since 1970, server time.
    pub at: u64,
    /// The bucket did not answer then, and it was let in: whoever has come since does not give way to it.
    pub late: bool,
}

/// What a claim came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// Greet it when these are settled: they are of other devices.
    Yes {
        settle: Vec<UnsettledSession>,
        /// What else is to be told: sessions of the device itself, which nobody waits for.
        replaced: Vec<UnsettledSession>,
    },
    /// It was displaced while it could not be told, or somebody came since its hello.
    Displaced(Displaced),
    /// So many are in, and nobody of them gives way.
    Full { count: usize },
    /// The value is full of devices that are connected and of sessions that are not settled.
    NoRoom,
}

impl DeviceClaim {
    /// As others of the same user see it.
    pub fn as_other(&self) -> OtherDevice {
        OtherDevice { device: self.device.clone(), name: self.name.clone(), class: self.class }
    }
}

impl UserDevices {
    pub fn device(&self, id: &DeviceId) -> Option<&DeviceEntry> {
        self.devices.iter().find(|d| d.id == *id)
    }

    fn device_mut(&mut self, id: &DeviceId) -> Option<&mut DeviceEntry> {
        self.devices.iter_mut().find(|d| d.id == *id)
    }

    /// Is this the session of the device that counts?
    pub fn has(&self, device: &DeviceId, session: &Token) -> bool {
        self.device(device).and_then(|d| d.session.as_ref()).is_some_and(|s| s.session == *session)
    }

    /// Writes the claim into the value, if it may be; else the value stays as it is. Asked again after a lost answer it
    /// finds what it has written.
    /// `gone`: whether, as far as is known, the session's edge does not live any more. Nothing is lost if that is
    /// wrong: such a session gives way first, and its edge is asked as any other's.
    pub fn claim(
        &mut self,
        claim: &DeviceClaim,
        policy: &DevicePolicy,
        gone: impl Fn(&SessionPlace) -> bool,
    ) -> Claimed {
        if self.has(&claim.device, &claim.place.session) {
            return self.claimed(claim);
        }
        let mut after = self.clone();
        after.unsettled.retain(|u| claim.at.saturating_sub(u.at) < SETTLED_BY_ITSELF_MS || !gone(&u.place));
        let own = after.device(&claim.device).filter(|d| d.session.is_some() && d.class == claim.class);
        let in_place = own.map(|d| d.since);
        if in_place.is_none()
            && let Err(no) = after.make_way(claim, policy.of(claim.class), &gone)
        {
            return no;
        }
        after.enter(claim, in_place.unwrap_or(claim.at));
        if !after.fits(&claim.device) {
            return Claimed::NoRoom;
        }
        *self = after;
        self.claimed(claim)
    }

    fn claimed(&self, claim: &DeviceClaim) -> Claimed {
        let (replaced, others): (Vec<_>, Vec<_>) =
            self.unsettled.iter().cloned().partition(|u| u.device == claim.device);
        Claimed::Yes { settle: others.into_iter().filter(|u| u.class == claim.class).collect(), replaced }
    }

    /// Takes out of the class whoever gives way to the claim.
    fn make_way(
        &mut self,
        claim: &DeviceClaim,
        policy: ClassPolicy,
        gone: &impl Fn(&SessionPlace) -> bool,
    ) -> Result<(), Claimed> {
        let others =
            self.devices.iter().filter(|d| d.id != claim.device && d.class == claim.class && d.session.is_some());
        let mut others: Vec<&DeviceEntry> = others.collect();
        let too_many = (others.len() + 1).saturating_sub(policy.count.max(1));
        if too_many == 0 {
            return Ok(());
        }
        let over = |d: &&DeviceEntry| d.session.as_ref().is_some_and(gone);
        let by_age = |d: &&DeviceEntry| match policy.gives_way {
            GivesWay::LeastActive => d.active,
            GivesWay::Oldest | GivesWay::Nobody => d.since,
        };
        others.sort_by_key(|d| (!over(d), by_age(d)));
        let refuses = policy.gives_way == GivesWay::Nobody;
        let takes = |d: &&DeviceEntry| claim.had.is_none() && !refuses && (!claim.late || d.since <= claim.at);
        let out: Vec<DeviceId> =
            others.iter().filter(|d| over(d) || takes(d)).take(too_many).map(|d| d.id.clone()).collect();
        if out.len() < too_many {
            let full = refuses && claim.had.is_none() && !claim.late;
            return Err(if full { Claimed::Full { count: others.len() } } else { self.displaced(claim, &others) });
        }
        for id in out {
            self.take_out(&id, claim.at, Some(&claim.device));
        }
        Ok(())
    }

    /// Who took over from this device: whom its entry names, if that is still in, else whoever came last.
    fn displaced(&self, claim: &DeviceClaim, others: &[&DeviceEntry]) -> Claimed {
        let known = self.device(&claim.device).and_then(|d| d.displaced.as_ref());
        let named = known.and_then(|by| others.iter().find(|d| d.id == by.device));
        let by = named.or_else(|| others.iter().max_by_key(|d| d.since));
        by.map_or(Claimed::NoRoom, |by| Claimed::Displaced(by.took_over(by.since)))
    }

    fn enter(&mut self, claim: &DeviceClaim, since: u64) {
        self.take_out(&claim.device, claim.at, None);
        self.devices.retain(|d| d.id != claim.device);
        self.devices.push(DeviceEntry {
            id: claim.device.clone(),
            class: claim.class,
            name: claim.name.clone(),
            app: claim.app.clone(),
            family: claim.family.clone(),
            since,
            active: claim.at,
            session: Some(claim.place.clone()),
            displaced: None,
        });
    }

    /// Its session, if it has one, is to be settled.
    fn take_out(&mut self, id: &DeviceId, at: u64, by: Option<&DeviceId>) {
        let Some(entry) = self.device_mut(id) else { return };
        let Some(place) = entry.session.take() else { return };
        entry.displaced = by.map(|by| DisplacedBy { device: by.clone(), at });
        let unsettled = UnsettledSession { device: id.clone(), class: entry.class, place, at };
        self.unsettled.push(unsettled);
    }

    /// Makes the value small enough: devices are forgotten that are not connected, those first that were active longest
    /// ago. False: it cannot be.
    fn fits(&mut self, newcomer: &DeviceId) -> bool {
        while self.devices.len() > limits::USER_DEVICES || self.bytes() > limits::USER_DEVICES_BYTES {
            let idle = self.devices.iter().filter(|d| d.session.is_none() && d.id != *newcomer);
            let Some(id) = idle.min_by_key(|d| d.active).map(|d| d.id.clone()) else { return false };
            self.devices.retain(|d| d.id != id);
        }
        true
    }

    fn bytes(&self) -> usize {
        rmp_serde::to_vec_named(self).map_or(usize::MAX, |bytes| bytes.len())
    }

    /// The session is over. By its id: a newer one of the device stays. `settled`: sessions of which it is known by now
    /// that they cannot write any more, as it is of this one. Does it change anything?
    pub fn leave(&mut self, device: &DeviceId, session: &Token, at: u64, settled: &[Token]) -> bool {
        let known = self.unsettled.len();
        self.unsettled.retain(|u| u.place.session != *session && !settled.contains(&u.place.session));
        let held = self.device_mut(device).filter(|d| d.session.as_ref().is_some_and(|s| s.session == *session));
        let left = held.map(|entry| (entry.session, entry.active) = (None, entry.active.max(at))).is_some();
        left || self.unsettled.len() < known
    }

    /// A login is over: its device is in the list no more, unless it came again with another login. Its session is
    /// closed by the end of the login, and settled like that of one that was displaced. Does it change anything?
    pub fn forget(&mut self, device: &DeviceId, family: &Token, at: u64) -> bool {
        let Some(entry) = self.device(device).filter(|d| d.family == *family) else { return false };
        let left = if entry.session.is_some() { at } else { entry.active };
        self.left = self.left.max(Some(left));
        self.take_out(device, at, None);
        self.devices.retain(|d| d.id != *device);
        true
    }

    /// When a device was here last that is not connected; milliseconds since 1970.
    pub fn last_left(&self) -> Option<u64> {
        self.devices.iter().filter(|d| d.session.is_none()).map(|d| d.active).max().max(self.left)
    }

    /// Who took over from a device that has no session, if its class is full since then: until it takes over itself, it
    /// writes nothing, over HTTP neither.
    pub fn displaced_now(&self, device: &DeviceId, policy: &DevicePolicy) -> Option<Displaced> {
        let entry = self.device(device)?;
        let by = entry.displaced.as_ref()?;
        let others = self.devices.iter().filter(|d| d.class == entry.class && d.session.is_some());
        if others.clone().count() < policy.of(entry.class).count {
            return None;
        }
        let named = others.clone().find(|d| d.id == by.device);
        named.or_else(|| others.max_by_key(|d| d.since)).map(|d| d.took_over(by.at))
    }
}

impl DeviceEntry {
    fn took_over(&self, since: u64) -> Displaced {
        Displaced { by: OtherDevice { device: self.id.clone(), name: self.name.clone(), class: self.class }, since }
    }
}

/// A session that is out of the value and whose edge has no lease with its incarnation is settled without asking after
/// so long: that edge had lost its lease since, and reads the value before it goes on. Far more than the list of leases
/// that an edge keeps may be behind.
const SETTLED_BY_ITSELF_MS: u64 = 60_000;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
