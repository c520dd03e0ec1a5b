//! Who may make an account: anybody, whoever has an invite, nobody.

use futures_util::future::join_all;
use natterjack_persister::{
    directory::RegistrationRule,
    store::accounts::{Accounts as _, NewInvite},
    tokens::{InviteHash, mint_id},
};
use natterjack_protocol::{
    Code, Token,
    internal::{
        operator::{INVITE_USES, OperatorAnswer, OperatorRequest},
        rpc::DirectoryRequest,
    },
    text::user_name_key,
};
use natterjack_runtime::clock::wall_ms;

use crate::kit::{self, World, cheap, login, register};

const HOUR: u64 = 3_600_000;

/// For an hour.
async fn invite(world: &World, uses: u32) -> Token {
    match world.operate(&OperatorRequest::Invite { uses, good_for: HOUR }).await.unwrap() {
        OperatorAnswer::Invite { code, expires } => {
            assert!(expires.abs_diff(wall_ms() + HOUR) < HOUR / 60, "{expires}");
            code
        }
        other => panic!("{other:?}"),
    }
}

fn invited(name: &str, code: &Token) -> DirectoryRequest {
    let (name, password) = (name.to_owned(), kit::PASSWORD.to_owned());
    DirectoryRequest::Register { name, password, device: kit::device(), invite: Some(code.clone()) }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_needs_an_invite_and_each_is_counted_once() {
    let mut world = World::with_registration(RegistrationRule::Invite).await;
    world.start_directory(cheap()).await;
    let code = invite(&world, 2).await;
    assert_eq!(world.refusal(&register("Alice")).await.code, Code::BadInvite, "none");
    let made_up = Token::parse("i0000000000000000").unwrap();
    assert_eq!(world.refusal(&invited("Alice", &made_up)).await.code, Code::BadInvite);
    // Long ago: the instance that judges may be some milliseconds behind the one that has made it.
    let expired = Token::parse("i1111111111111111").unwrap();
    world.store.add_invite(NewInvite { code: InviteHash::of(&expired), uses: 1, expires: 1 }).await.unwrap();
    assert_eq!(world.refusal(&invited("Alice", &expired)).await.code, Code::BadInvite);
    for uses in [0, INVITE_USES + 1, u32::MAX] {
        assert_eq!(
            world.operate(&OperatorRequest::Invite { uses, good_for: HOUR }).await,
            Err(Code::Invalid),
            "{uses}"
        );
    }
    let alice = world.tokens(&invited("Alice", &code)).await.unwrap();
    // An answer that was lost; a name that is taken; a password that is none.
    assert_eq!(world.tokens(&invited("Alice", &code)).await.unwrap().user, alice.user);
    assert_eq!(world.refusal(&invited("aLICE", &code)).await.code, Code::Conflict);
    let short = DirectoryRequest::Register {
        name: "Dora".into(),
        password: "short".into(),
        device: kit::device(),
        invite: Some(code.clone()),
    };
    assert_eq!(world.refusal(&short).await.code, Code::Invalid);
    world.tokens(&invited("Bob", &code)).await.unwrap();
    assert_eq!(world.refusal(&invited("Carol", &code)).await.code, Code::BadInvite, "used up");
    assert!(world.tokens(&login("Alice", kit::PASSWORD)).await.is_ok(), "a login needs none");

    // One use, and many want it: one gets it.
    let one = invite(&world, 1).await;
    let many: Vec<_> = (0..8).map(|n| invited(&format!("racer-{n}"), &one)).collect();
    let all = join_all(many.iter().map(|r| world.tokens(r))).await;
    assert_eq!(all.iter().filter(|t| t.is_ok()).count(), 1);
    assert!(all.iter().flat_map(|t| t.as_ref().err()).all(|e| e.code == Code::BadInvite));
    // The same registration at once, with the only use: all of them are the same account.
    let one = invite(&world, 1).await;
    let all = join_all((0..6).map(async |_| world.tokens(&invited("Emma", &one)).await)).await;
    let users: Vec<_> = all.into_iter().map(|t| t.unwrap().user).collect();
    assert!(users.iter().all(|u| *u == users[0]), "{users:?}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_that_was_cut_off_goes_on_with_its_use() {
    let world = World::with_registration(RegistrationRule::Invite).await;
    let code = invite(&world, 1).await;
    // A persister has written the use down, and died before the account was made.
    let user = mint_id('u').unwrap();
    let taken = world.store.take_invite(InviteHash::of(&code), &user_name_key("Alice"), &user, 1).await.unwrap();
    assert_eq!(taken.as_ref(), Some(&user));
    assert_eq!(world.refusal(&invited("Bob", &code)).await.code, Code::BadInvite, "it is Alice's");
    assert_eq!(world.tokens(&invited("Alice", &code)).await.unwrap().user, user);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_makes_an_account_where_registration_is_closed() {
    let world = World::with_registration(RegistrationRule::Closed).await;
    let code = invite(&world, 1).await;
    for request in [register("Alice"), invited("Alice", &code)] {
        assert_eq!(world.refusal(&request).await.code, Code::RegistrationClosed);
    }
    world.end().await;
}
