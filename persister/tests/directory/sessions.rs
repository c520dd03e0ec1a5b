//! The logins of a user: listed, ended one by one or all at once, told to the edges.

use natterjack_persister::store::accounts::Accounts as _;
use natterjack_protocol::{
    Code, DeviceId, Token,
    client::{
        frame::DeviceClass,
        http::{Tokens, UserSession},
    },
    internal::{
        devices::{DeviceClaim, DevicePolicy, SessionPlace, UserDevices},
        kv::RevokedLogin,
        operator::OperatorRequest,
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

async fn sessions(world: &World, of: &Tokens) -> Vec<UserSession> {
    let asked = DirectoryRequest::Sessions { actor: of.user.clone(), device: of.device.clone() };
    let Ok(DirectoryAnswer::Sessions(all)) = world.ask(&asked).await else { panic!("sessions were asked for") };
    all
}

async fn devices(world: &World, of: &Tokens) -> Vec<(String, bool)> {
    sessions(world, of).await.into_iter().map(|s| (s.device.to_string(), s.this)).collect()
}

/// As an edge does it at the hello of the device with this token.
async fn connect(world: &World, t: &Tokens, session: &str, at: u64) {
    let place =
        SessionPlace { session: session.parse().unwrap(), edge: "e1".parse().unwrap(), incarnation: "i".into() };
    let claim = DeviceClaim {
        device: t.device.clone(),
        class: DeviceClass::Tablet,
        name: Some(format!("{} of anna", t.device)),
        app: Some("Teich 1.2".into()),
        family: claims(world, &t.access).await.fam.parse().unwrap(),
        place,
        had: None,
        at,
        late: false,
    };
    let policy = DevicePolicy { tablet: DevicePolicy::default().desktop, ..DevicePolicy::default() };
    let key = world.buckets().devices(&t.user);
    let merged = key.merge(|found| {
        let mut value = found.unwrap_or_default();
        value.claim(&claim, &policy, |_| false);
        Some(value)
    });
    merged.await.unwrap();
}

async fn listed(world: &World, of: &Tokens) -> UserDevices {
    world.buckets().devices(&of.user).load().await.unwrap().unwrap()
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

#[tokio::test(flavor = "multi_thread")]
async fn a_login_is_listed_with_its_device_and_an_ended_one_takes_no_place() {
    let world = World::new(cheap()).await;
    let phone = world.register("Alice").await;
    let (web, tablet) = (log_in(&world, "Alice", "web").await, log_in(&world, "Alice", "tablet").await);
    connect(&world, &phone, "s1", 1_000).await;
    connect(&world, &web, "s2", 2_000).await;
    let mut value = listed(&world, &phone).await;
    assert!(value.leave(&web.device, &"s2".parse().unwrap(), 3_000, &[]));
    world.buckets().devices(&phone.user).put(&value).await.unwrap();

    let all = sessions(&world, &phone).await;
    let of = |t: &Tokens| all.iter().find(|s| s.device == t.device).unwrap();
    let (here, gone, never) = (of(&phone), of(&web), of(&tablet));
    assert_eq!((here.name.as_deref(), here.app.as_deref()), (Some("phone-1 of anna"), Some("Teich 1.2")));
    assert_eq!((here.class, here.edge.as_deref()), (Some(DeviceClass::Tablet), Some("e1")));
    assert_eq!((here.last_active, here.connected, here.this), (Some(1_000), true, true));
    assert_eq!((gone.class.is_some(), gone.connected, gone.last_active), (true, false, Some(3_000)));
    assert_eq!((never.class, never.last_active), (None, None));

    // A login that the device does not use any more says nothing of its place.
    connect(&world, &log_in(&world, "Alice", "web").await, "s3", 4_000).await;
    let web_now = listed(&world, &phone).await.device(&web.device).cloned();
    assert!(web_now.as_ref().is_some_and(|d| d.session.is_some()));
    world.ask(&DirectoryRequest::Logout { refresh: web.refresh.clone() }).await.unwrap();
    assert_eq!(listed(&world, &phone).await.device(&web.device).cloned(), web_now);

    // Its session is settled by whoever comes next.
    assert_eq!(end(&world, &phone, EndedLogins::Of(web.device.clone())).await, Ok(1));
    let after = listed(&world, &phone).await;
    assert!(after.device(&web.device).is_none() && after.unsettled.len() == 1 && after.last_left() > Some(4_000));
    world.operate(&OperatorRequest::Logout { name: "Alice".into() }).await.unwrap();
    assert!(listed(&world, &phone).await.devices.is_empty());
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
    connect(&world, &first, "s1", 1_000).await;
    assert_eq!(world.store.open_logins(&first.user, None, 1).await.unwrap().len(), 1);
    assert_eq!(end(&world, &first, EndedLogins::All).await, Ok(1));
    assert_eq!(world.refusal(&refresh(&first)).await.code, Code::Unauthorized);
    assert!(listed(&world, &first).await.devices.is_empty());
    world.end().await;
}
