//! MD5 and SHA-256: of one stream, of many messages, of many streams that grow together. The scheduler keeps the lanes
//! full.
#![forbid(unsafe_code)]

use std::fmt;

use super::lanes::md5::Backend;
use super::lanes::sha256::Sha256Backend;
use super::lanes::{Block, LANES_MAX, md5, sha256};

const BLOCK: usize = size_of::<Block>();

/// States of either hash, word by word: `states[word][lane]`. MD5 has the first four words.
type States = [[u32; LANES_MAX]; 8];

/// Blocks of each lane.
type Inputs<'a> = [&'a [Block]; LANES_MAX];

/// A hash that can be computed in lanes: [`OfMd5`] or [`OfSha256`].
pub trait Algorithm: Copy + private::Kernels {}

/// MD5 (RFC 1321).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OfMd5;

/// SHA-256 (FIPS 180-4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OfSha256;

impl Algorithm for OfMd5 {}
impl Algorithm for OfSha256 {}

/// What the scheduler wants of a hash; nobody else can add one.
pub(crate) mod private {
    use super::{Block, Inputs, States};

    pub trait Kernels {
        type Backend: Copy;
        type State: Copy + AsRef<[u32]> + AsMut<[u32]>;
        type Digest: Copy + Default + AsRef<[u8]> + AsMut<[u8]>;
        const INITIAL: Self::State;
        const NAME: &str;

        fn detect() -> Self::Backend;
        fn lanes(backend: Self::Backend) -> usize;
        /// The first `active` lanes, `blocks` blocks each.
        fn compress(of: Self::Backend, states: &mut States, inputs: &Inputs<'_>, active: usize, blocks: usize);
        /// One message.
        fn compress_one(state: &mut Self::State, blocks: &[Block]);
        /// A word of the state, as it stands in the digest.
        fn word_bytes(word: u32) -> [u8; 4];
        /// The length of the message, as it stands at its end.
        fn len_bytes(bits: u64) -> [u8; 8];
    }
}
use private::Kernels;

impl Kernels for OfMd5 {
    type Backend = Backend;
    type State = [u32; 4];
    type Digest = [u8; 16];
    /// RFC 1321 3.3.
    const INITIAL: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
    const NAME: &str = "Md5";

    fn detect() -> Backend {
        Backend::detect()
    }

    fn lanes(backend: Backend) -> usize {
        backend.lanes()
    }

    fn compress(backend: Backend, states: &mut States, inputs: &Inputs<'_>, active: usize, blocks: usize) {
        let states: &mut md5::States = states.first_chunk_mut().expect("eight are more than four");
        backend.for_active(active).compress(states, inputs, blocks);
    }

    fn compress_one(state: &mut [u32; 4], blocks: &[Block]) {
        md5::one(state, blocks);
    }

    fn word_bytes(word: u32) -> [u8; 4] {
        word.to_le_bytes()
    }

    fn len_bytes(bits: u64) -> [u8; 8] {
        bits.to_le_bytes()
    }
}

impl Kernels for OfSha256 {
    type Backend = Sha256Backend;
    type State = [u32; 8];
    type Digest = [u8; 32];
    /// FIPS 180-4, 5.3.3.
    const INITIAL: [u32; 8] =
        [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];
    const NAME: &str = "Sha256";

    fn detect() -> Sha256Backend {
        Sha256Backend::detect()
    }

    fn lanes(backend: Sha256Backend) -> usize {
        backend.lanes()
    }

    fn compress(
        backend: Sha256Backend,
        states: &mut sha256::States,
        inputs: &Inputs<'_>,
        active: usize,
        blocks: usize,
    ) {
        backend.for_active(active).compress(states, inputs, active, blocks);
    }

    fn compress_one(state: &mut [u32; 8], blocks: &[Block]) {
        sha256::one(state, blocks);
    }

    fn word_bytes(word: u32) -> [u8; 4] {
        word.to_be_bytes()
    }

    fn len_bytes(bits: u64) -> [u8; 8] {
        bits.to_be_bytes()
    }
}

/// MD5 of a single stream in pieces.
#[derive(Clone, Debug, Default)]
pub struct Md5(Md5Chain);

impl Md5 {
    /// The state before any byte.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece.
    pub fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    /// The digest of all bytes.
    pub fn finish(self) -> [u8; 16] {
        self.0.finish()
    }
}

/// MD5 of each of `messages`, on the fastest back end. See [`md5_many_with`].
///
/// # Panics
/// `out` has another length than `messages`.
pub fn md5_many(messages: &[&[u8]], out: &mut [[u8; 16]]) {
    many::<OfMd5>(Backend::detect(), messages, out);
}

/// MD5 of each of `messages`, which may differ in length. The long ones start first and a free lane takes the next
/// message, so that lanes stay full; for full speed give at least twice [`Backend::lanes`] messages of equal length, or
/// a multiple of it.
///
/// # Panics
/// `out` has another length than `messages`, or the machine lacks the back end.
pub fn md5_many_with(backend: Backend, messages: &[&[u8]], out: &mut [[u8; 16]]) {
    many::<OfMd5>(backend, messages, out);
}

/// SHA-256 of each of `messages`; as [`md5_many`].
///
/// # Panics
/// `out` has another length than `messages`.
pub fn sha256_many(messages: &[&[u8]], out: &mut [[u8; 32]]) {
    many::<OfSha256>(Sha256Backend::detect(), messages, out);
}

/// SHA-256 of each of `messages`; as [`md5_many_with`].
///
/// # Panics
/// `out` has another length than `messages`, or the machine lacks the back end.
pub fn sha256_many_with(backend: Sha256Backend, messages: &[&[u8]], out: &mut [[u8; 32]]) {
    many::<OfSha256>(backend, messages, out);
}

fn many<A: Algorithm>(backend: A::Backend, messages: &[&[u8]], out: &mut [A::Digest]) {
    assert_eq!(messages.len(), out.len(), "a digest for each message");
    let mut order: Vec<usize> = (0..messages.len()).collect();
    order.sort_unstable_by_key(|&i| std::cmp::Reverse(messages[i].len()));
    let mut order = order.into_iter();
    let next = || {
        let ticket = order.next()?;
        let (body, rest) = messages[ticket].as_chunks();
        let mut tail = Tail::default();
        tail.pad::<A>(rest, messages[ticket].len() as u64);
        Some(LaneWork { ticket, state: A::INITIAL, lead: None, body, tail })
    };
    run::<A>(backend, next, |ticket, state| out[ticket] = digest_of::<A>(&state));
}

/// A stream whose hash is computed in lanes, in parallel with that of other streams: see [`advance_many`].
#[derive(Clone)]
pub struct Chain<A: Algorithm> {
    state: A::State,
    len: u64,
    /// The last `len % 64` bytes, which do not fill a block yet.
    open: Block,
}

/// A stream whose MD5 is computed in lanes.
pub type Md5Chain = Chain<OfMd5>;

/// A stream whose SHA-256 is computed in lanes.
pub type Sha256Chain = Chain<OfSha256>;

impl<A: Algorithm> Chain<A> {
    /// The state before any byte.
    pub const fn new() -> Self {
        Self { state: A::INITIAL, len: 0, open: [0; BLOCK] }
    }

    /// Bytes so far.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are no bytes yet.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends to the stream, by itself.
    pub fn update(&mut self, data: &[u8]) {
        let work = self.work(0, data);
        work.lead.iter().for_each(|lead| A::compress_one(&mut self.state, std::slice::from_ref(lead)));
        A::compress_one(&mut self.state, work.body);
    }

    /// The digest of all bytes.
    pub fn finish(self) -> A::Digest {
        let mut tail = Tail::default();
        tail.pad::<A>(&self.open[..self.open_len()], self.len);
        let mut state = self.state;
        A::compress_one(&mut state, tail.blocks());
        digest_of::<A>(&state)
    }

    const fn open_len(&self) -> usize {
        (self.len % BLOCK as u64) as usize
    }

    /// Returns `data` up to its last whole block as work for a lane, and saves the rest.
    fn work<'a>(&mut self, ticket: usize, mut data: &'a [u8]) -> LaneWork<'a, A::State> {
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
        LaneWork { ticket, state: self.state, lead, body, tail: Tail::default() }
    }
}

impl Md5Chain {
    /// Continues another stream after byte `len`, from its [`Self::state`].
    ///
    /// # Panics
    /// `len` is no multiple of 64.
    pub fn at(state: [u8; 16], len: u64) -> Self {
        assert!(len.is_multiple_of(BLOCK as u64), "a state stands between blocks");
        let mut words = OfMd5::INITIAL;
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
        digest_of::<OfMd5>(&self.state)
    }

    /// Appends all that continues the stream elsewhere: length, state, and the bytes that fill no block yet.
    pub fn save(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.len.to_le_bytes());
        out.extend_from_slice(&digest_of::<OfMd5>(&self.state));
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
}

impl<A: Algorithm> Default for Chain<A> {
    fn default() -> Self {
        Self::new()
    }
}

impl<A: Algorithm> fmt::Debug for Chain<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}Chain(of {} bytes)", A::NAME, self.len)
    }
}

/// Advances each chain by its piece, on the fastest back end. For blocks that span several buffers, for whole-file
/// digests (serial in a file, parallel over files), and for hashing buffers piece by piece while they are in the cache.
pub fn advance_many<A: Algorithm>(pieces: &mut [(&mut Chain<A>, &[u8])]) {
    advance_many_with(A::detect(), pieces);
}

/// [`advance_many`] on a given back end.
///
/// # Panics
/// The machine lacks the back end.
pub fn advance_many_with<A: Algorithm>(backend: A::Backend, pieces: &mut [(&mut Chain<A>, &[u8])]) {
    let mut order: Vec<usize> = (0..pieces.len()).collect();
    order.sort_unstable_by_key(|&i| std::cmp::Reverse(pieces[i].1.len()));
    let mut states: Vec<Option<A::State>> = vec![None; pieces.len()];
    let mut order = order.into_iter();
    let next = || {
        let ticket = order.next()?;
        let (chain, data) = &mut pieces[ticket];
        Some(chain.work(ticket, data))
    };
    run::<A>(backend, next, |ticket, state| states[ticket] = Some(state));
    for ((chain, _), state) in pieces.iter_mut().zip(states) {
        chain.state = state.expect("each piece was worked");
    }
}

fn digest_of<A: Algorithm>(state: &A::State) -> A::Digest {
    let mut digest = A::Digest::default();
    for (bytes, word) in digest.as_mut().as_chunks_mut().0.iter_mut().zip(state.as_ref()) {
        *bytes = A::word_bytes(*word);
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
    /// RFC 1321 3.1 and 3.2, FIPS 180-4 5.1.1: `rest` (shorter than a block), one bit, zeros, and the length of the message in bits
    /// modulo 2^64.
    fn pad<A: Algorithm>(&mut self, rest: &[u8], message_len: u64) {
        const LENGTH: usize = size_of::<u64>();
        self.used = if rest.len() + 1 + LENGTH <= BLOCK { 1 } else { 2 };
        let bytes = self.blocks[..self.used].as_flattened_mut();
        bytes[..rest.len()].copy_from_slice(rest);
        bytes[rest.len()] = 0x80;
        let end = bytes.len();
        bytes[end - LENGTH..].copy_from_slice(&A::len_bytes(message_len.wrapping_mul(8)));
    }

    fn blocks(&self) -> &[Block] {
        &self.blocks[..self.used]
    }
}

/// Blocks for one lane: a block assembled from two pieces, whole blocks in place, and a padded end.
struct LaneWork<'a, S> {
    ticket: usize,
    state: S,
    lead: Option<Block>,
    body: &'a [Block],
    tail: Tail,
}

impl<S> LaneWork<'_, S> {
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
fn run<'a, A: Algorithm>(
    backend: A::Backend,
    mut next: impl FnMut() -> Option<LaneWork<'a, A::State>>,
    mut done: impl FnMut(usize, A::State),
) {
    let width = A::lanes(backend);
    let mut lanes: [Option<LaneWork<'a, A::State>>; LANES_MAX] = [const { None }; LANES_MAX];
    let mut states: States = [[0; LANES_MAX]; 8];
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
            for (word, value) in states.iter_mut().zip(work.state.as_ref()) {
                word[active] = *value;
            }
            lanes[active] = Some(work);
            active += 1;
        }
        let Some(first) = &lanes[0] else { return };
        // Idle lanes hash the input of lane 0; their states are unused.
        let mut inputs = [first.current(); LANES_MAX];
        let mut blocks = usize::MAX;
        for (input, work) in inputs.iter_mut().zip(lanes[..active].iter().flatten()) {
            *input = work.current();
            blocks = blocks.min(input.len());
        }
        A::compress(backend, &mut states, &inputs, active, blocks);
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
            let mut state = work.state;
            for (value, word) in state.as_mut().iter_mut().zip(&states) {
                *value = word[lane];
            }
            done(work.ticket, state);
            active -= 1;
            lanes.swap(lane, active);
            lanes[active] = None;
            for word in &mut states {
                word[lane] = word[active];
            }
        }
    }
}
