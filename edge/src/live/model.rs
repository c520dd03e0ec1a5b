//! The promise of step 5 as a property: whatever is lost, doubled, delayed or published again on live subjects, whoever
//! attaches or leaves meanwhile, every session shows the log's order exactly once. Seeded, no sockets.

mod world;

use proptest::prelude::*;

use self::world::World;

/// What happens next. Numbers pick among what there is, modulo.
#[derive(Debug, Clone)]
pub enum Step {
    Send {
        thread: usize,
        fate: Fate,
    },
    /// A new holder of the partition publishes the last events again.
    PublishAgain {
        thread: usize,
        back: usize,
    },
    Head {
        thread: usize,
        lost: bool,
    },
    Attach {
        user: usize,
        json: bool,
        cursor_back: usize,
    },
    /// One of the sessions that attach comes a step further: a barrier comes back, or its pages have gone out.
    /// A barrier may come from a holder that was replaced this many messages ago and does not know it.
    Further {
        which: usize,
        behind: u64,
    },
    /// Nothing more can be held for a session that attaches.
    Crowded {
        which: usize,
    },
    Leave {
        session: usize,
    },
    /// One of the fetches under way comes back.
    Fetched {
        which: usize,
    },
    Delayed,
    Forget,
}

#[derive(Debug, Clone, Copy)]
pub enum Fate {
    Arrives,
    Lost,
    Doubled,
    /// Comes later than what is published after it.
    Delayed,
}

fn any_step() -> impl Strategy<Value = Step> {
    use Fate::{Arrives, Delayed, Doubled, Lost};
    let fate = prop_oneof![4 => Just(Arrives), 2 => Just(Lost), 1 => Just(Doubled), 1 => Just(Delayed)];
    prop_oneof![
        8 => (0usize..5, fate).prop_map(|(thread, fate)| Step::Send { thread, fate }),
        1 => (0usize..5, 1usize..6).prop_map(|(thread, back)| Step::PublishAgain { thread, back }),
        1 => (0usize..5, any::<bool>()).prop_map(|(thread, lost)| Step::Head { thread, lost }),
        2 => (0usize..3, any::<bool>(), 0usize..8)
            .prop_map(|(user, json, cursor_back)| Step::Attach { user, json, cursor_back }),
        2 => (0usize..4).prop_map(|which| Step::Further { which, behind: 0 }),
        1 => (0usize..4, 1u64..12).prop_map(|(which, behind)| Step::Further { which, behind }),
        1 => (0usize..4).prop_map(|which| Step::Crowded { which }),
        1 => (0usize..6).prop_map(|session| Step::Leave { session }),
        3 => (0usize..4).prop_map(|which| Step::Fetched { which }),
        1 => Just(Step::Delayed),
        1 => Just(Step::Forget),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]
    #[test]
    fn every_session_shows_the_logs_order_exactly_once(steps in prop::collection::vec(any_step(), 1..80)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        world.quiesce();
        world.check();
    }
}
