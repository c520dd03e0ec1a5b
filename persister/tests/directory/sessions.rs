//! The logins of a user: listed, ended one by one or all at once, told to the edges.

use natterjack_persister::store::accounts::Accounts as _;
use natterjack_protocol::{
    Code, DeviceId, Token,
    client::http::Tokens,
    internal::{
        kv::RevokedLogin,
        rpc::{DirectoryAnswer, DirectoryRequest, EndedLogins},
    },
};

use crate::{
    claims,
    kit::{self, World, cheap, refresh},
};

async fn log_in(world: &World, name: &str, device: &str) -> Tokens {
    let device = Token::parse(device).unwrap();
    world
        .tokens(&DirectoryRequest::Login { name: name.into(), password: kit::PASSWORD.into(), device, known: false })
        .await
        .unwrap()
}

async fn devices(world: &World, of: &Tokens) -> Vec<(String, bool)> {
    let asked = DirectoryRequest::Sessions { actor: of.user.clone(), device: of.device.clone() };
    let Ok(DirectoryAnswer::Sessions(all)) = world.ask(&asked).await else { panic!("sessions were asked for") };
    all.into_iter().map(|s| (s.device.to_string(), s.this)).collect()
}

async fn end(world: &World, of: &Tokens, which: EndedLogins) -> Result<u32, Code> {
    match world.ask(&DirectoryRequest::EndSessions { actor: of.user.clone(), which }).await {
        Ok(DirectoryAnswer::Ended(n)) => Ok(n),
        Ok(_) => panic!("a number was asked for"),
        Err(refusal) => Err(refusal.code),
    }
}

async fn told(world: &World, t: &Tokens) -> bool {
    let fam = claims(world, &t.access).await.fam;
    world.buckets().revoked_login(&fam.parse().unwrap()).exists().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_are_listed_and_ended() {
    let world = World::new(cheap()).await;
    let (phone, other) = (world.register("Alice").await, world.register("Bob").await);
    let (web, again, tablet) = (
        log_in(&world, "Alice", "web").await,
        log_in(&world, "Alice", "web").await,
        log_in(&world, "Alice", "tablet").await,
    );
    let row = |d: &str, this| (d.to_owned(), this);
    assert_eq!(devices(&world, &web).await, [row("web", true), row("tablet", false), row("phone-1", false)]);
    let device = |d: &str| EndedLogins::Of(DeviceId::parse(d).unwrap());
    assert_eq!(end(&world, &phone, device("nowhere")).await, Err(Code::NotFound));
    assert_eq!(end(&world, &other, device("web")).await, Err(Code::NotFound), "somebody else's");
    assert_eq!(end(&world, &phone, device("web")).await, Ok(2));
    assert_eq!(end(&world, &phone, device("web")).await, Ok(0), "again is no harm");
    for over in [&web, &again] {
        assert_eq!(world.refusal(&refresh(over)).await.code, Code::Unauthorized);
        assert!(told(&world, over).await);
    }
    assert_eq!(devices(&world, &phone).await, [row("phone-1", true), row("tablet", false)]);
    // All others: a second login on the same device is another one.
    let second = log_in(&world, "Alice", "phone-1").await;
    let keep = Token::parse(&claims(&world, &second.access).await.fam).unwrap();
    assert_eq!(end(&world, &second, EndedLogins::AllBut(keep.clone())).await, Ok(2));
    assert_eq!(end(&world, &second, EndedLogins::AllBut(keep)).await, Ok(0));
    assert!(
        told(&world, &phone).await
            && told(&world, &tablet).await
            && !told(&world, &second).await
            && !told(&world, &other).await
    );
    assert_eq!(devices(&world, &second).await, [row("phone-1", true)]);
    let renewed = world.tokens(&refresh(&second)).await.unwrap();
    assert_eq!(end(&world, &renewed, EndedLogins::All).await, Ok(1));
    assert_eq!(devices(&world, &renewed).await, []);
    assert!(world.tokens(&refresh(&other)).await.is_ok(), "nobody else was concerned");
    world.end().await;
}

/// A persister has told the edges and died before the store knew it: whoever asks again finds the login, and it is told
/// again.
#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_was_cut_off_is_finished_by_who_asks_again() {
    let world = World::new(cheap()).await;
    let first = world.register("Alice").await;
    let fam = claims(&world, &first.access).await.fam;
    // As it stands then: told, and open in the store.
    let value = RevokedLogin { user: first.user.clone(), device: first.device.clone(), until: u64::MAX >> 11 };
    world.buckets().revoked_login(&fam.parse().unwrap()).put(&value).await.unwrap();
    assert_eq!(world.store.open_logins(&first.user, None, 1).await.unwrap().len(), 1);
    assert_eq!(end(&world, &first, EndedLogins::All).await, Ok(1));
    assert_eq!(world.refusal(&refresh(&first)).await.code, Code::Unauthorized);
    world.end().await;
}
