//! The parts of paths. `UserId`, `GroupId` and `Thread` refuse what is none.

use natterjack_protocol::{GroupId, Thread, UserId};
use serde::Deserialize;
use utoipa::IntoParams;

use super::openapi::scalar;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct UserPath {
    #[param(inline, value_type = scalar::Id)]
    pub user: UserId,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct GroupPath {
    #[param(inline, value_type = scalar::Id)]
    pub group: GroupId,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct MemberPath {
    #[param(inline, value_type = scalar::Id)]
    pub group: GroupId,
    #[param(inline, value_type = scalar::Id)]
    pub user: UserId,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct ThreadPath {
    #[param(inline, value_type = scalar::Thread)]
    pub thread: Thread,
}
