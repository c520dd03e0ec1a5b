//! What operators do to accounts.

use natterjack_protocol::{
    Code,
    internal::{
        operator::{OperatorAnswer, OperatorRequest},
        rpc::{DirectoryAnswer, DirectoryRequest, EndedLogins},
    },
};

use crate::kit::{self, World, cheap, login, refresh, register};

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_disabled_and_enabled_and_given_a_password() {
    let world = World::new(cheap()).await;
    let (alice, bob) = (world.register("Alice").await, world.register("Alicent").await);
    let name = || "aLICE".to_owned();
    let done = async |request: OperatorRequest| match world.operate(&request).await.unwrap() {
        OperatorAnswer::Done { account, ended } => (account.name, account.disabled, ended),
        other => panic!("{other:?}"),
    };
    let alice_is = |disabled, ended| ("Alice".to_owned(), disabled, ended);
    let OperatorAnswer::Account { account, sessions } =
        world.operate(&OperatorRequest::Show { name: name() }).await.unwrap()
    else {
        panic!("an account was asked for")
    };
    assert_eq!((&account.user, account.disabled, sessions.len()), (&alice.user, false, 1));
    let by_id = world.operate(&OperatorRequest::Show { name: alice.user.to_string() }).await;
    assert_eq!(by_id, Ok(OperatorAnswer::Account { account, sessions }));
    let OperatorAnswer::Accounts(all) = world.operate(&OperatorRequest::List { after: None }).await.unwrap() else {
        panic!("accounts were asked for")
    };
    assert_eq!(all.len(), 2);
    let last = all.last().map(|a| a.user.clone());
    assert_eq!(world.operate(&OperatorRequest::List { after: last }).await, Ok(OperatorAnswer::Accounts(vec![])));
    for none in ["Ali", "nobody", "Alicente", "a b", "u0000"] {
        assert_eq!(world.operate(&OperatorRequest::Logout { name: none.into() }).await, Err(Code::NotFound), "{none}");
    }

    assert_eq!(done(OperatorRequest::Disable { name: name() }).await, alice_is(true, 1));
    assert_eq!(done(OperatorRequest::Disable { name: name() }).await, alice_is(true, 0), "again is no harm");
    assert_eq!(world.refusal(&refresh(&alice)).await.code, Code::Unauthorized);
    let disabled = world.refusal(&login("Alice", kit::PASSWORD)).await;
    assert_eq!(disabled.code, Code::AccountDisabled);
    assert_eq!(world.refusal(&register("Alice")).await.code, Code::AccountDisabled, "a registration that comes again");
    let wrong = world.refusal(&login("Alice", "wrong password")).await;
    assert_eq!(wrong.code, Code::Unauthorized, "only who knows the password is told");
    let left = DirectoryRequest::EndSessions { actor: alice.user.clone(), which: EndedLogins::All };
    assert!(matches!(world.ask(&left).await, Ok(DirectoryAnswer::Ended(0))));
    assert_eq!(done(OperatorRequest::Enable { name: name() }).await, alice_is(false, 0));
    let back = world.tokens(&login("Alice", kit::PASSWORD)).await.unwrap();
    assert_eq!(back.user, alice.user);

    let set = |password: &str| OperatorRequest::SetPassword { name: name(), password: password.into() };
    assert_eq!(world.operate(&set("short")).await, Err(Code::Invalid));
    assert_eq!(done(set("forgotten no more")).await, alice_is(false, 1));
    assert_eq!(world.refusal(&refresh(&back)).await.code, Code::Unauthorized);
    assert_eq!(world.refusal(&login("Alice", kit::PASSWORD)).await.code, Code::Unauthorized);
    world.tokens(&login("Alice", "forgotten no more")).await.unwrap();
    assert_eq!(done(OperatorRequest::Logout { name: name() }).await, alice_is(false, 1));
    assert!(world.tokens(&refresh(&bob)).await.is_ok(), "nobody else was concerned");
    world.end().await;
}

/// Logins that are under way when an account is disabled end with the others.
#[tokio::test(flavor = "multi_thread")]
async fn no_login_slips_past_a_disabled_account() {
    let mut world = World::new(cheap()).await;
    world.start_directory(cheap()).await;
    world.register("Alice").await;
    for _ in 0..10 {
        let logins = vec![login("Alice", kit::PASSWORD); 8];
        let disable = OperatorRequest::Disable { name: "Alice".into() };
        let all = futures_util::future::join_all(logins.iter().map(|l| world.tokens(l)));
        let (disabled, all) = tokio::join!(world.operate(&disable), all);
        disabled.unwrap();
        for t in all.into_iter().flatten() {
            assert_eq!(world.refusal(&refresh(&t)).await.code, Code::Unauthorized);
        }
        world.operate(&OperatorRequest::Enable { name: "Alice".into() }).await.unwrap();
    }
    world.end().await;
}
