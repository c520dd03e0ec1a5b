//! Broken bytes, from a seed: whatever a decoder is given, it answers, and what it takes it can say again.

use std::panic::{AssertUnwindSafe, catch_unwind};

use natterjack_protocol::{
    Entry, Event, MsgId,
    client::frame::{ClientFrame, ServerFrame},
    codec::{Codec, form::Form},
    internal::live::{Beat, Ephemeral, LiveMessage},
    log::{
        EntryView,
        fold::{GroupState, UserThreads},
    },
};

use super::{fixture::hex, naive, samples, tree};

/// Mutations of one fixture in one codec.
const ROUNDS: u64 = 3_000;
const SEED: u64 = 0x6e61_7474_6572_6a61;

/// SplitMix64: the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

fn mutate(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    /// Markers of MessagePack with large lengths, and what opens and closes JSON.
    const NASTY: &[u8] = b"\xdd\xdf\xdb\xc6\xc9\xdc\xde\xda\xc1\xc0\xcf\xd3\xcb\xff\x00\x7f\x80\x90[]{}\",:\\-e.9";
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len());
        match random.below(9) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            1 if !bytes.is_empty() => bytes[at] = random.next() as u8,
            2 if !bytes.is_empty() => bytes[at] = NASTY[random.below(NASTY.len())],
            3 => bytes.insert(at, NASTY[random.below(NASTY.len())]),
            4 if !bytes.is_empty() => drop(bytes.remove(at)),
            5 => bytes.truncate(at),
            6 => {
                let end = at + random.below(bytes.len() - at + 1);
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            7 => {
                let from = random.below(other.len());
                let to = from + random.below(other.len() - from + 1);
                let end = (at + to - from).min(bytes.len());
                bytes.splice(at..end, other[from..to].iter().copied());
            }
            _ => drop(bytes.drain(at..at + random.below(bytes.len() - at + 1))),
        }
    }
}

/// The codec and the document's words come to the same.
fn agree(codec: Codec, bytes: &[u8]) {
    let tree = tree::read(codec, bytes);
    if codec == Codec::Json && tree.as_ref().is_some_and(naive::unsure) {
        return;
    }
    let form = Form::of(codec, bytes);
    assert_eq!(form.fault.is_none(), tree.is_some(), "{form:?} {tree:?}");
    let frame = tree.and_then(|tree| naive::frame(codec, &tree));
    assert_eq!(ClientFrame::decode(codec, bytes).ok(), frame);
}

fn take(codec: Codec, bytes: &[u8]) {
    agree(codec, bytes);
    match ClientFrame::decode(codec, bytes) {
        Ok(frame) => assert_eq!(ClientFrame::decode(codec, &frame.encode(codec)).as_ref(), Ok(&frame), "said again"),
        Err(bad) => assert!(!bad.refusal.message.is_empty() && bad.refusal.message.chars().count() < 500),
    }
    if let Ok(Some(frame)) = ServerFrame::decode(codec, bytes) {
        assert_eq!(ServerFrame::decode(codec, &frame.encode(codec)), Ok(Some(frame)), "said again");
    }
    let _ = codec.decode::<GroupState>(bytes);
    let _ = codec.decode::<UserThreads>(bytes);
    if codec == Codec::Msgpack {
        let _ = LiveMessage::parse(bytes);
        let _ = (Beat::decode(bytes), Ephemeral::decode(bytes));
        let entry = Entry::decode(bytes);
        let view = EntryView::parse(bytes);
        if let Ok(entry) = &entry {
            let view = view.as_ref().expect("whoever decodes and whoever splices agree");
            assert_eq!((view.from, view.cid, view.seen), (entry.from.as_str(), entry.cid, entry.seen));
            assert_eq!(&Entry::decode(&entry.encode()).unwrap(), entry);
        }
        if let Ok(view) = view {
            let mut frame = Vec::new();
            view.write_event(&mut frame, "dm.a.b", MsgId(9), MsgId(7), 42);
            match (entry, codec.decode::<Event>(&frame)) {
                (Ok(entry), Ok(event)) => {
                    assert_eq!(event, Event::new("dm.a.b".parse().unwrap(), MsgId(9), MsgId(7), 42, entry));
                }
                (Err(_), Err(_)) => {}
                (entry, event) => panic!("an entry is readable or not, spliced or decoded: {entry:?} {event:?}"),
            }
        }
    }
}

#[test]
fn no_mutation_panics() {
    let all = samples::all();
    let of = |i: usize, codec| if codec == Codec::Json { all[i].json.clone().into_bytes() } else { all[i].bytes() };
    for (i, fixture) in all.iter().enumerate() {
        for codec in Codec::ALL {
            let whole = of(i, codec);
            let run = |bytes: &[u8], what: &str| {
                if catch_unwind(AssertUnwindSafe(|| take(codec, bytes))).is_err() {
                    panic!("{}/{} in {codec:?}, {what}: {}", fixture.direction, fixture.name, hex(bytes));
                }
            };
            for cut in 0..whole.len() {
                run(&whole[..cut], "cut short");
            }
            for round in 0..ROUNDS {
                let mut random = Random(SEED ^ (i as u64) << 32 ^ round);
                let other = of(random.below(all.len()), codec);
                let mut bytes = whole.clone();
                mutate(&mut bytes, &other, &mut random);
                run(&bytes, &format!("round {round}"));
            }
        }
    }
}
