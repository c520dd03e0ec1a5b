//! How many devices of a class may be connected at once, and who gives way to one more.

use serde::{Deserialize, Serialize};

use crate::client::frame::DeviceClass;

/// Who leaves when one more comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum GivesWay {
    /// Whoever has been in for longest.
    #[serde(rename = "displace_oldest")]
    Oldest,
    /// Whoever said hello longest ago.
    #[serde(rename = "displace_least_active")]
    LeastActive,
    /// The newcomer is refused.
    #[serde(rename = "refuse")]
    Nobody,
}

impl GivesWay {
    pub const ALL: [(Self, &str); 3] =
        [(Self::Oldest, "displace_oldest"), (Self::LeastActive, "displace_least_active"), (Self::Nobody, "refuse")];

    /// As the configuration spells it.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, n)| *n == name).map(|(way, _)| *way)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassPolicy {
    /// At least 1.
    pub count: usize,
    pub gives_way: GivesWay,
}

/// Of every class. The same at all edges of an installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DevicePolicy {
    pub phone: ClassPolicy,
    pub tablet: ClassPolicy,
    pub desktop: ClassPolicy,
    pub web: ClassPolicy,
    pub other: ClassPolicy,
}

impl Default for DevicePolicy {
    /// Who opens a phone wants to use it. Of several desktops or browsers the one goes that was opened longest ago.
    /// `other`: programs, and clients that do not say what they are.
    fn default() -> Self {
        let of = |count, gives_way| ClassPolicy { count, gives_way };
        Self {
            phone: of(1, GivesWay::Oldest),
            tablet: of(1, GivesWay::Oldest),
            desktop: of(5, GivesWay::LeastActive),
            web: of(5, GivesWay::LeastActive),
            other: of(10, GivesWay::LeastActive),
        }
    }
}

impl DevicePolicy {
    pub fn of(&self, class: DeviceClass) -> ClassPolicy {
        match class {
            DeviceClass::Phone => self.phone,
            DeviceClass::Tablet => self.tablet,
            DeviceClass::Desktop => self.desktop,
            DeviceClass::Web => self.web,
            DeviceClass::Other => self.other,
        }
    }

    /// Connected at once, of all classes: at most `limits::USER_DEVICES`.
    pub fn total(&self) -> usize {
        [self.phone, self.tablet, self.desktop, self.web, self.other].iter().map(|p| p.count).sum()
    }
}
