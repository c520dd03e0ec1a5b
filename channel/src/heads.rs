//! Between steps 4 and 5: the newest ids of threads, for an edge that attaches or sweeps. A request comes from the
//! subscription of the partition's holder; the answer leaves through `publisher`, on the connection and behind the
//! frames it speaks of. Pure.

use natterjack_protocol::{
    Code, MsgId, Refusal,
    internal::rpc::{Heads, HeadsAnswer},
    limits,
};

use crate::thread_heads::ThreadHeads;

pub fn answer(request: &[u8], known: &ThreadHeads, frontier: MsgId, ts: u64) -> Result<HeadsAnswer, Refusal> {
    let Heads { threads } = rmp_serde::from_slice(request)
        .map_err(|e| Refusal::new(Code::BadFrame, format!("request not understood: {e}")))?;
    // 1,024 lookups are about 50 µs, for which everything else of the partition waits.
    if threads.len() > limits::HEADS_PER_BATCH {
        return Err(Refusal::invalid(format!("threads: at most {} in one request", limits::HEADS_PER_BATCH)));
    }
    let heads = threads.into_iter().map(|t| known.of(t)).collect();
    Ok(HeadsAnswer { frontier, horizon: known.horizon(), ts, heads })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_the_order_of_the_request_and_bounded() {
        let mut known = ThreadHeads::new(120_000, MsgId(4));
        known.advance(1, MsgId(5), 0);
        known.advance(2, MsgId(6), 0);
        let ask = |threads| rmp_serde::to_vec_named(&Heads { threads }).unwrap();
        let a = answer(&ask(vec![2, 3, 1]), &known, MsgId(6), 77).unwrap();
        assert_eq!(
            a,
            HeadsAnswer { frontier: MsgId(6), horizon: MsgId(4), ts: 77, heads: vec![MsgId(6), MsgId(0), MsgId(5)] }
        );
        assert_eq!(answer(&ask(vec![0; 1_025]), &known, MsgId(6), 0).unwrap_err().code, Code::Invalid);
        assert_eq!(answer(b"\xc1", &known, MsgId(6), 0).unwrap_err().code, Code::BadFrame);
    }
}
