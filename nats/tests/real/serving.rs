use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use natterjack_nats::{NatsConfig, ProvisionError, RpcError, provision, serve};
use natterjack_protocol::{Code, Refusal, Times, limits};
use natterjack_testkit::{NatsServer, eventually};

const T: Duration = Duration::from_secs(2);

#[tokio::test]
async fn answers_refusals_panics_overload_and_nobody() {
    let (_s, nats, _) = NatsServer::ready().await;
    let ask = async |q: u32| nats.request::<u32, u32>("svc.test", &q, T).await;
    assert!(matches!(ask(1).await, Err(RpcError::NoResponders)));
    let begun = Arc::new(AtomicUsize::new(0));
    let count = begun.clone();
    let service = serve(&nats, "svc.test".into(), Some("svc.test"), 2, move |q: u32| {
        count.fetch_add(1, Relaxed);
        async move {
            match q {
                0 => Err(Refusal::new(Code::NotFound, "zero")),
                1 => panic!("on purpose"),
                2 => {
                    // Long enough to overlap with the others.
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    Ok(2)
                }
                n => Ok(n * 10),
            }
        }
    })
    .await
    .unwrap();
    eventually("served", async || ask(7).await.is_ok()).await;
    assert_eq!(ask(7).await.unwrap(), 70);
    assert!(matches!(ask(0).await, Err(RpcError::Refused(r)) if r.code == Code::NotFound));
    assert!(matches!(ask(1).await, Err(RpcError::Refused(r)) if r.code == Code::Internal));
    let bad = nats.request::<&str, u32>("svc.test", &"text", T).await;
    assert!(matches!(bad, Err(RpcError::Refused(r)) if r.code == Code::BadFrame));
    let (a, b, c) = tokio::join!(ask(2), ask(2), ask(2));
    let so_far = begun.load(Relaxed);
    let full = [a, b, c].into_iter().filter(|r| matches!(r, Err(RpcError::Full))).count();
    assert_eq!(full, 1);
    // A request in flight is finished by the drain.
    let (slow, ()) = tokio::join!(ask(2), async {
        eventually("it is with the service", async || begun.load(Relaxed) > so_far).await;
        service.drain().await;
    });
    assert_eq!(slow.unwrap(), 2);
    assert!(matches!(ask(7).await, Err(RpcError::NoResponders)));
}

/// Neither is dropped in silence: the asker is told at once.
#[tokio::test]
async fn what_is_too_large_for_the_server_is_refused() {
    let (_s, nats, _) = NatsServer::ready().await;
    let _service =
        serve(&nats, "svc.large".into(), None, 2, |bytes: usize| async move { Ok("x".repeat(bytes)) }).await.unwrap();
    let ask = async |bytes: usize| nats.request::<usize, String>("svc.large", &bytes, T).await;
    let max = nats.max_payload();
    eventually("served", async || ask(1).await.is_ok()).await;
    assert_eq!(ask(max - 100).await.unwrap().len(), max - 100);
    assert!(matches!(ask(max + 1).await, Err(RpcError::Refused(r)) if r.code == Code::Internal));
    let asked = nats.request::<String, String>("svc.large", &"x".repeat(max + 1), T).await;
    assert!(matches!(asked, Err(RpcError::TooLarge(_))), "{asked:?}");
    assert_eq!(ask(7).await.unwrap().len(), 7, "the connection is as good as before");
}

#[tokio::test]
async fn a_server_that_carries_too_little_is_not_provisioned() {
    let server = NatsServer::start_with(&format!("max_payload: {}\n", limits::PAYLOAD_BYTES - 1));
    let nats = server.nats().await;
    let refused = provision(&nats, &NatsConfig::default(), &Times::default()).await;
    assert!(matches!(&refused, Err(ProvisionError::Payload(why)) if why.contains("max_payload: 1MB")), "{refused:?}");
}
