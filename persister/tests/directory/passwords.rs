//! Changing one's own password: the old one is needed, other logins end, and a lost answer is no harm.

use futures_util::future::join_all;
use natterjack_protocol::{
    Code, Token,
    client::http::Tokens,
    internal::rpc::{DirectoryAnswer, DirectoryRequest},
};

use crate::{
    claims,
    kit::{self, World, cheap, login, refresh},
};

const NEW: &str = "a longer password";

async fn change(world: &World, t: &Tokens, old: &str, new: &str) -> Result<u32, Code> {
    let family = Token::parse(&claims(world, &t.access).await.fam).unwrap();
    let request = DirectoryRequest::ChangePassword { actor: t.user.clone(), family, old: old.into(), new: new.into() };
    match world.ask(&request).await {
        Ok(DirectoryAnswer::Ended(n)) => Ok(n),
        Ok(_) => panic!("a number was asked for"),
        Err(refusal) => Err(refusal.code),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_changed_by_who_knows_the_old_one() {
    let world = World::new(cheap()).await;
    let mine = world.register("Alice").await;
    let other = world.tokens(&login("Alice", kit::PASSWORD)).await.unwrap();
    for (old, new, code) in [
        ("wrong password", NEW, Code::Forbidden),
        ("short", NEW, Code::Forbidden),
        (kit::PASSWORD, "1234567", Code::Invalid),
        (kit::PASSWORD, &"x".repeat(257), Code::Invalid),
    ] {
        assert_eq!(change(&world, &mine, old, new).await, Err(code), "{old} {new}");
    }
    assert!(world.tokens(&login("Alice", kit::PASSWORD)).await.is_ok(), "nothing was changed");
    assert_eq!(change(&world, &mine, kit::PASSWORD, NEW).await, Ok(2));
    assert_eq!(world.refusal(&refresh(&other)).await.code, Code::Unauthorized);
    assert_eq!(world.refusal(&login("Alice", kit::PASSWORD)).await.code, Code::Unauthorized);
    let mine = world.tokens(&refresh(&mine)).await.unwrap();
    // The answer was lost: the same once more, which ends what a stranger has begun meanwhile, and nothing else.
    let late = world.tokens(&login("alice", NEW)).await.unwrap();
    assert_eq!(change(&world, &mine, kit::PASSWORD, NEW).await, Ok(1));
    assert_eq!(change(&world, &mine, kit::PASSWORD, NEW).await, Ok(0));
    assert_eq!(world.refusal(&refresh(&late)).await.code, Code::Unauthorized);
    assert_eq!(change(&world, &mine, kit::PASSWORD, "another password").await, Err(Code::Forbidden));
    // The limits of a password are met exactly.
    assert_eq!(change(&world, &mine, NEW, &"x".repeat(256)).await, Ok(0));
    assert_eq!(change(&world, &mine, &"x".repeat(256), "12345678").await, Ok(0));
    assert!(world.tokens(&login("Alice", "12345678")).await.is_ok());
    world.end().await;
}

/// A login that was checked against the old password and is written down after the change does not outlive it.
#[tokio::test(flavor = "multi_thread")]
async fn no_login_with_the_old_password_slips_through() {
    let mut world = World::new(cheap()).await;
    world.start_directory(cheap()).await;
    let mine = world.register("Alice").await;
    let (mut old, mut slipped) = (kit::PASSWORD.to_owned(), 0);
    for n in 0..20 {
        let new = format!("password number {n}");
        let logins = vec![login("Alice", &old); 6];
        let (changed, logged_in) =
            tokio::join!(change(&world, &mine, &old, &new), join_all(logins.iter().map(|l| world.tokens(l))));
        assert!(changed.is_ok(), "{changed:?}");
        for t in logged_in.into_iter().flatten() {
            slipped += 1;
            let refused = world.refusal(&refresh(&t)).await;
            assert_eq!(refused.code, Code::Unauthorized, "round {n}");
        }
        old = new;
    }
    eprintln!("{slipped} logins were answered before a change ended them");
    assert!(world.tokens(&refresh(&mine)).await.is_ok());
    world.end().await;
}
