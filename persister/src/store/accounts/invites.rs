//! Invites: an account may be made with one, as often as it says.
//!
//! A use is written down before the account is made, under the key of the account's name and with the id that it will
//! have. So a registration that comes again, or goes on after a crash, finds its use and counts once. Whoever does not
//! get the name gives the use back, unless somebody got the name with it.

use crate::tokens::InviteHash;

pub struct NewInvite {
    pub code: InviteHash,
    /// How many accounts may be made with it.
    pub uses: u32,
    /// Milliseconds since 1970.
    pub expires: u64,
}
