//! MD5: of one stream, of many messages, of many streams that grow together. The scheduler keeps the lanes full.
#![forbid(unsafe_code)]

use std::fmt;

use super::md5_lanes::{Backend, Block, LANES_MAX, States};

/// RFC 1321 3.3.
const INITIAL: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
const BLOCK: usize = size_of::<Block>();

/// MD5 of a single stream in pieces.
#[derive(Clone, Default)]
pub struct Md5(md5::Md5);

impl Md5 {
    /// The state before any byte.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece.
    pub fn update(&mut self, data: &[u8]) {
        md5::Digest::update(&mut self.0, data);
    }

    /// The digest of all bytes.
    pub fn finish(self) -> [u8; 16] {
        md5::Digest::finalize(self.0).into()
    }
}

impl fmt::Debug for Md5 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Md5(..)")
    }
}

/// MD5 of each of `messages`, on the fastest back end. See [`md5_many_with`].
///
/// # Panics
/// `out` has another length than `messages`.
pub fn md5_many(messages: &[&[u8]], out: &mut [[u8; 16]]) {
    md5_many_with(Backend::detect(), messages, out);
}

/// MD5 of each of `messages`, which may differ in length. The long ones start first and a free lane takes the next
/// message, so that lanes stay full; for full speed give at least twice [`Backend::lanes`] messages of equal length, or
/// a multiple of it.
///
/// # Panics
/// `out` has another length than `messages`, or the machine lacks the back end.
pub fn md5_many_with(backend: Backend, messages: &[&[u8]], out: &mut [[u8; 16]]) {
    assert_eq!(messages.len(), out.len(), "a digest for each message");
    let mut order: Vec<usize> = (0..messages.len()).collect();
    order.sort_unstable_by_key(|&i| std::cmp::Reverse(messages[i].len()));
    let mut order = order.into_iter();
    let next = || {
        let ticket = order.next()?;
        let (body, rest) = messages[ticket].as_chunks();
        let mut tail = Tail::default();
        tail.pad(rest, messages[ticket].len() as u64);
        Some(Work { ticket, state: INITIAL, lead: None, body, tail })
    };
    run(backend, next, |ticket, state| out[ticket] = digest_of(state));
}

/// A stream whose MD5 is computed in lanes, in parallel with that of other streams: see [`advance_many`].
#[derive(Clone)]
pub struct Md5Chain {
    state: [u32; 4],
    len: u64,
    /// The last `len % 64` bytes, which do not fill a block yet.
    open: Block,
}

impl Md5Chain {
    /// The state before any byte.
    pub const fn new() -> Self {
        Self { state: INITIAL, len: 0, open: [0; BLOCK] }
    }

    /// Bytes so far.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are no bytes yet.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Continues another stream after byte `len`, from its [`Self::state`].
    ///
    /// # Panics
    /// `len` is no multiple of 64.
    pub fn at(state: [u8; 16], len: u64) -> Self {
        assert!(len.is_multiple_of(BLOCK as u64), "a state stands between blocks");
        let mut words = INITIAL;
        for (word, bytes) in words.iter_mut().zip(state.as_chunks().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        Self { state: words, len, open: [0; BLOCK] }
    }

    /// The state after whole blocks of 64 bytes.
    ///
    /// # Panics
    /// The length so far is no multiple of 64.
    pub fn state(&self) -> [u8; 16] {
        assert!(self.open_len() == 0, "a state stands between blocks");
        digest_of(self.state)
    }

    /// Appends all that continues the stream elsewhere: length, state, and the bytes that fill no block yet.
    pub fn save(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.len.to_le_bytes());
        out.extend_from_slice(&digest_of(self.state));
        out.extend_from_slice(&self.open[..self.open_len()]);
    }

    /// Continues the stream that [`Self::save`] wrote; `None` if the bytes are not from there.
    pub fn load(bytes: &[u8]) -> Option<Self> {
        let (len, rest) = bytes.split_first_chunk()?;
        let (state, open) = rest.split_first_chunk::<16>()?;
        let len = u64::from_le_bytes(*len);
        let whole = len - len % BLOCK as u64;
        let mut chain = Self::at(*state, whole);
        chain.len = len;
        let into = chain.open.get_mut(..open.len()).filter(|_| open.len() as u64 == len - whole)?;
        into.copy_from_slice(open);
        Some(chain)
    }

    /// The digest of all bytes.
    pub fn finish(self) -> [u8; 16] {
        let mut tail = Tail::default();
        tail.pad(&self.open[..self.open_len()], self.len);
        let mut state = self.state;
        md5::block_api::compress(&mut state, tail.blocks());
        digest_of(state)
    }

    const fn open_len(&self) -> usize {
        (self.len % BLOCK as u64) as usize
    }

    /// Returns `data` up to its last whole block as work for a lane, and saves the rest.
    fn work<'a>(&mut self, ticket: usize, mut data: &'a [u8]) -> Work<'a> {
        let filled = self.open_len();
        self.len += data.len() as u64;
        let mut lead = None;
        if filled > 0 {
            let take = data.len().min(BLOCK - filled);
            self.open[filled..filled + take].copy_from_slice(&data[..take]);
            data = &data[take..];
            if filled + take == BLOCK {
                lead = Some(self.open);
            }
        }
        let (body, rest) = data.as_chunks();
        if filled == 0 || lead.is_some() {
            self.open[..rest.len()].copy_from_slice(rest);
        }
        Work { ticket, state: self.state, lead, body, tail: Tail::default() }
    }
}

impl Default for Md5Chain {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Md5Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Md5Chain(of {} bytes)", self.len)
    }
}

/// Advances each chain by its piece, on the fastest back end. For blocks that span several buffers, for whole-file
/// digests (serial in a file, parallel over files), and for hashing buffers piece by piece while they are in the cache.
pub fn advance_many(pieces: &mut [(&mut Md5Chain, &[u8])]) {
    advance_many_with(Backend::detect(), pieces);
}

/// [`advance_many`] on a given back end.
///
/// # Panics
/// The machine lacks the back end.
pub fn advance_many_with(backend: Backend, pieces: &mut [(&mut Md5Chain, &[u8])]) {
    let mut order: Vec<usize> = (0..pieces.len()).collect();
    order.sort_unstable_by_key(|&i| std::cmp::Reverse(pieces[i].1.len()));
    let mut states: Vec<Option<[u32; 4]>> = vec![None; pieces.len()];
    let mut order = order.into_iter();
    let next = || {
        let ticket = order.next()?;
        let (chain, data) = &mut pieces[ticket];
        Some(chain.work(ticket, data))
    };
    run(backend, next, |ticket, state| states[ticket] = Some(state));
    for ((chain, _), state) in pieces.iter_mut().zip(states) {
        chain.state = state.expect("each piece was worked");
    }
}

fn digest_of(state: [u32; 4]) -> [u8; 16] {
    let mut digest = [0; 16];
    for (bytes, word) in digest.as_chunks_mut().0.iter_mut().zip(state) {
        *bytes = word.to_le_bytes();
    }
    digest
}

/// The padded end of a message: none to two blocks.
#[derive(Clone, Copy)]
struct Tail {
    blocks: [Block; 2],
    used: usize,
}

impl Default for Tail {
    fn default() -> Self {
        Self { blocks: [[0; BLOCK]; 2], used: 0 }
    }
}

impl Tail {
    /// RFC 1321 3.1 and 3.2: `rest` (shorter than a block), one bit, zeros, and the length of the message in bits
    /// modulo 2^64.
    fn pad(&mut self, rest: &[u8], message_len: u64) {
        const LENGTH: usize = size_of::<u64>();
        self.used = if rest.len() + 1 + LENGTH <= BLOCK { 1 } else { 2 };
        let bytes = self.blocks[..self.used].as_flattened_mut();
        bytes[..rest.len()].copy_from_slice(rest);
        bytes[rest.len()] = 0x80;
        let end = bytes.len();
        bytes[end - LENGTH..].copy_from_slice(&message_len.wrapping_mul(8).to_le_bytes());
    }

    fn blocks(&self) -> &[Block] {
        &self.blocks[..self.used]
    }
}

/// Blocks for one lane: a block assembled from two pieces, whole blocks in place, and a padded end.
struct Work<'a> {
    ticket: usize,
    state: [u32; 4],
    lead: Option<Block>,
    body: &'a [Block],
    tail: Tail,
}

impl Work<'_> {
    /// The next contiguous blocks; empty at the end.
    fn current(&self) -> &[Block] {
        match &self.lead {
            Some(lead) => std::slice::from_ref(lead),
            None if !self.body.is_empty() => self.body,
            None => self.tail.blocks(),
        }
    }

    /// Consumes `blocks` of [`current`](Self::current).
    fn advance(&mut self, blocks: usize) {
        if blocks == 0 {
        } else if self.lead.is_some() {
            self.lead = None;
        } else if !self.body.is_empty() {
            self.body = &self.body[blocks..];
        } else {
            self.tail.blocks.copy_within(blocks.., 0);
            self.tail.used -= blocks;
        }
    }
}

/// Processes everything that `next` returns, as many at a time as there are lanes, and passes each final state to
/// `done`.
fn run<'a>(backend: Backend, mut next: impl FnMut() -> Option<Work<'a>>, mut done: impl FnMut(usize, [u32; 4])) {
    let width = backend.lanes();
    let mut lanes: [Option<Work<'a>>; LANES_MAX] = [const { None }; LANES_MAX];
    let mut states: States = [[0; LANES_MAX]; 4];
    let mut more = true;
    // Lanes in use are the first ones: a finished lane is refilled, or takes the last one's work.
    let mut active = 0;
    loop {
        while more && active < width {
            let Some(work) = next() else {
                more = false;
                break;
            };
            if work.current().is_empty() {
                done(work.ticket, work.state);
                continue;
            }
            for (word, value) in states.iter_mut().zip(work.state) {
                word[active] = value;
            }
            lanes[active] = Some(work);
            active += 1;
        }
        let Some(first) = &lanes[0] else { return };
        let backend = backend.for_active(active);
        // Idle lanes hash the input of lane 0; their states are unused.
        let mut inputs = [first.current(); LANES_MAX];
        let mut blocks = usize::MAX;
        for (input, work) in inputs.iter_mut().zip(lanes[..active].iter().flatten()) {
            *input = work.current();
            blocks = blocks.min(input.len());
        }
        backend.compress(&mut states, &inputs, blocks);
        let mut lane = 0;
        while lane < active {
            let work = lanes[lane].as_mut().expect("the lanes in use are the first ones");
            work.advance(blocks);
            // Work moved here from the last lane has made its step only if that one was visited; it was not, so it
            // is advanced when the loop comes back to this lane.
            if !work.current().is_empty() {
                lane += 1;
                continue;
            }
            done(work.ticket, states.map(|word| word[lane]));
            active -= 1;
            lanes.swap(lane, active);
            lanes[active] = None;
            for word in &mut states {
                word[lane] = word[active];
            }
        }
    }
}
