//! What a device says of itself, and why it may not be in.

use natterjack_protocol::{
    Code, Refusal, Token,
    client::frame::{DeviceClass, Displaced},
    internal::devices::{Claimed, DeviceClaim},
    text,
};

/// What a client says of its device.
#[derive(Debug, Clone, Default)]
pub struct DeviceHello {
    pub class: DeviceClass,
    pub name: Option<String>,
    pub app: Option<String>,
    pub session: Option<Token>,
}

impl DeviceHello {
    /// With texts as they are kept.
    pub fn checked(
        class: DeviceClass,
        name: Option<&str>,
        app: Option<&str>,
        session: Option<Token>,
    ) -> Result<Self, Refusal> {
        let name = name.map(|n| text::device_name(n).map_err(|e| e.of("name"))).transpose()?;
        let app = app.map(|a| text::app_name(a).map_err(|e| e.of("app"))).transpose()?;
        Ok(Self { class, name, app, session })
    }
}

/// To a session that has to go because the device has a newer one.
pub fn replaced() -> Refusal {
    Refusal::new(Code::Conflict, "this device has a newer connection or poll")
}

/// Why a device may not be in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotIn {
    Displaced(Displaced),
    Refused(Refusal),
}

impl From<Refusal> for NotIn {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<NotIn> for Refusal {
    fn from(not_in: NotIn) -> Self {
        match not_in {
            NotIn::Refused(refusal) => refusal,
            NotIn::Displaced(Displaced { by, .. }) => {
                let who = by.name.unwrap_or_else(|| by.device.to_string());
                Self::new(Code::Displaced, format!("another device of this user ({who}) has taken over"))
            }
        }
    }
}

pub(super) fn not_in(claimed: Claimed, claim: &DeviceClaim) -> NotIn {
    match claimed {
        Claimed::Displaced(by) => NotIn::Displaced(by),
        Claimed::Full { count } => {
            let why =
                format!("{count} devices of the class {:?} are connected already; close one of them", claim.class);
            NotIn::Refused(Refusal::new(Code::DeviceLimit, why))
        }
        Claimed::Yes { .. } | Claimed::NoRoom => NotIn::Refused(Refusal::new(
            Code::DeviceLimit,
            "too many devices of this user are connected; close one of them",
        )),
    }
}
