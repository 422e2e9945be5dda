//! The CPU's share: hashing and sealing (or opening) whole slots, by workers shared by all drives.
//!
//! Blocks of several slots are hashed in parallel in one core's vector lanes: eight take hardly longer than one. So
//! slots are held back ([`LaneBatcher`]) as long as their drive has enough to do, and one worker takes them together.

use std::ops::Range;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::azure::manifest::nonzero_runs;
use crate::crypt::SectorCipher;
use crate::hash::{self, Algorithm, Chain, Crc64, Md5Chain, OfMd5, OfSha256};
use crate::io::Waker;
use crate::pool::Slot;
use crate::units::{ByteLen, StreamRange, VolumeOffset};

/// Most slots of one drive that wait for each other. With sixteen lanes (AVX-512) twice as many would hash faster, but a
/// drive has too few slots for that: see [`work`], which fills the other lanes from other drives.
const LANES_MAX: usize = 8;

/// A hash block, or a part of one, inside a slot.
#[derive(Clone, Debug)]
pub struct Span {
    /// Range of the slot.
    pub range: Range<usize>,
    /// Whether it is a whole block, pages, or part of a longer block.
    pub how: How,
}

/// Way of hashing a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// One whole block.
    Block,
    /// One block of a page blob: its non-zero runs.
    Pages,
    /// A part of a block that is in several slots, continued through `DigestJob::chain`: the first span of the slot or the last.
    Chain {
        /// Whether this is the block's end.
        ends: bool,
    },
}

/// A span of a file that is hashed as a whole in addition to its blocks.
#[derive(Clone, Copy, Debug)]
pub struct Whole {
    /// Index of the span in the job.
    pub span: usize,
    /// Whether a block ends with it, so that a [`Digest::Whole`] follows the block's digest.
    pub is_told: bool,
    /// Whether the file ends with it.
    pub ends: bool,
}

/// A run of a page blob's block: offset in the block, length, MD5.
pub type PageRun = (u32, u32, [u8; 16]);

/// Result of hashing a span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Digest {
    /// MD5 of the block.
    Block([u8; 16]),
    /// The non-zero runs of a page blob's block.
    Pages(Vec<PageRun>),
    /// The block continues in the next slot.
    Unfinished,
    /// MD5 of the file if this was its last block, otherwise the state of MD5 after the block.
    Whole([u8; 16]),
}

/// Direction through the cipher. Hashes and checksums are those of the unencrypted bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CipherDirection {
    /// To a drive: hashed, then sealed.
    Seal,
    /// From a drive: opened, then hashed. Without [`How::Pages`], whose runs would have to be known beforehand.
    Open,
}

/// A slot to hash, and to seal or open.
#[derive(Debug)]
pub struct DigestJob {
    /// The caller's name for the job.
    pub tag: u64,
    /// Bytes to hash and to seal or open, in place.
    pub slot: Slot,
    /// Bytes in use.
    pub len: usize,
    /// Ranges of the slot to hash, ascending.
    pub spans: Vec<Span>,
    /// State of a block that began in an earlier slot.
    pub chain: Option<Md5Chain>,
    /// Spans of files that are also hashed as a whole; ascending, and never two of one file.
    pub wholes: Vec<Whole>,
    /// State of such a file that began in an earlier slot; it belongs to the first of them.
    pub whole: Option<Md5Chain>,
    /// Direction through the cipher.
    pub direction: CipherDirection,
    /// Ranges to encrypt or decrypt: bytes of the slot, and their offset in the volume.
    pub crypt: Vec<(Range<usize>, VolumeOffset)>,
    /// The drive's cipher; `None` where nothing is encrypted.
    pub cipher: Option<Arc<SectorCipher>>,
    /// Sum up each span, too.
    pub sums_spans: bool,
    /// SHA-256 of each span, too.
    pub sha256: bool,
}

/// A job at the workers, and where its result goes.
#[derive(Debug)]
struct Queued {
    job: DigestJob,
    reply: Sender<Done>,
    /// Wakes the drive's thread.
    waker: Waker,
}

/// A processed slot.
#[derive(Debug)]
pub struct Done {
    /// The caller's name for the job.
    pub tag: u64,
    /// The slot given, sealed or opened.
    pub slot: Slot,
    /// One digest a span.
    pub digests: Vec<Digest>,
    /// State of a block that continues in the next slot.
    pub chain: Option<Md5Chain>,
    /// State of a file that is hashed as a whole and continues in the next slot.
    pub whole: Option<Md5Chain>,
    /// CRC-64/NVME of the unencrypted bytes in use.
    pub crc: u64,
    /// The same of each span, where it was asked for.
    pub span_crcs: Vec<u64>,
    /// SHA-256 of each span, where it was asked for.
    pub sha256s: Vec<[u8; 32]>,
}

/// Threads that hash, seal and open for all drives.
#[derive(Debug)]
pub struct Workers {
    jobs: Option<Sender<Vec<Queued>>>,
    threads: Vec<JoinHandle<()>>,
    /// Slots that one of them takes together.
    together: usize,
}

impl Workers {
    /// Starts `count` threads.
    ///
    /// # Errors
    /// The system refuses more threads.
    pub fn start(count: usize) -> std::io::Result<Self> {
        let (jobs, queue) = unbounded::<Vec<Queued>>();
        let lanes = hash::Backend::detect().lanes();
        let together = lanes.min(LANES_MAX);
        let workers = count.max(1);
        let threads = (0..workers)
            .map(|i| {
                let queue = queue.clone();
                std::thread::Builder::new().name(format!("seal-{i}")).spawn(move || work(&queue, lanes, workers))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { jobs: Some(jobs), threads, together })
    }

    /// A drive's connection; `waker` tells it of results. The number of its pool's slots bounds the number of jobs.
    pub fn lane_batcher(&self, waker: Waker) -> LaneBatcher {
        let queue = self.jobs.clone().expect("present until drop");
        let (reply, replies) = unbounded();
        LaneBatcher { queue, together: self.together, waiting: Vec::new(), away: 0, reply, replies, waker }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A worker's panic has been printed; the drives notice by the closed channel.
            let _ = thread.join();
        }
    }
}

/// A drive's queue to the workers, in which jobs that gain by it wait for each other.
#[derive(Debug)]
pub struct LaneBatcher {
    queue: Sender<Vec<Queued>>,
    together: usize,
    waiting: Vec<Queued>,
    away: usize,
    reply: Sender<Done>,
    replies: Receiver<Done>,
    waker: Waker,
}

impl LaneBatcher {
    /// Queues a job. [`Self::flush`] must follow before the caller waits for anything.
    pub fn push(&mut self, job: DigestJob) {
        let queued = Queued { job, reply: self.reply.clone(), waker: self.waker.clone() };
        if gains(&queued) {
            self.waiting.push(queued);
        } else {
            self.send(vec![queued]);
        }
    }

    /// Sends the waiting jobs: when they fill the lanes, and in any case unless the drive is kept busy without them.
    /// That halves the processor time for a drive slower than the processor, whose slots would be sent one by one.
    pub fn flush(&mut self, drive_is_busy: bool) {
        if self.waiting.len() >= self.together || !drive_is_busy && !self.waiting.is_empty() {
            let waiting = std::mem::take(&mut self.waiting);
            self.send(waiting);
        }
    }

    /// A result, if one is there.
    pub fn complete(&mut self) -> Option<Done> {
        let done = self.replies.try_recv().ok()?;
        self.away -= 1;
        Some(done)
    }

    /// The next result, once it is there; `None` when the workers are gone.
    pub fn wait(&mut self) -> Option<Done> {
        let done = self.replies.recv().ok()?;
        self.away -= 1;
        Some(done)
    }

    /// Jobs at the workers.
    pub fn away(&self) -> usize {
        self.away
    }

    /// Jobs held back for others.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn send(&mut self, jobs: Vec<Queued>) {
        self.away += jobs.len();
        // The workers outlive every sender; if they were gone, the missing results would reveal it.
        let _ = self.queue.send(jobs);
    }
}

/// Whether a job gains from waiting for others. Slots without blocks, and those that fill lanes by themselves, gain
/// nothing.
fn gains(queued: &Queued) -> bool {
    (1..=MESSAGES_MANY).contains(&queued.job.spans.len())
}

fn work(queue: &Receiver<Vec<Queued>>, lanes: usize, workers: usize) {
    let together = lanes.min(LANES_MAX);
    let mut carried: Vec<Queued> = Vec::new();
    loop {
        let mut jobs = std::mem::take(&mut carried);
        if jobs.is_empty() {
            let Ok(first) = queue.recv() else { return };
            jobs = first;
        }
        // Takes jobs that were sent one by one and had to wait for a worker: otherwise a drive that once came to wait
        // for the workers would keep sending them singly, since it never has enough to do.
        while jobs.len() < together && jobs.last().is_some_and(gains) {
            let Ok(more) = queue.try_recv() else { break };
            jobs.extend(more);
        }
        // Several drives are ahead of the workers: the other lanes cost little. Each other worker keeps a batch to take,
        // so that none idles.
        while jobs.len() < lanes && queue.len() >= workers && jobs.last().is_some_and(gains) {
            let Ok(more) = queue.try_recv() else { break };
            jobs.extend(more);
        }
        // One job more than lanes would take as long as all of them.
        carried = jobs.split_off(lanes.min(jobs.len()));
        digest(jobs);
    }
}

/// A slot is hashed and sealed in pieces of this length, so that it crosses the memory bus once, not three times: with
/// the default cipher 9 to 32 % faster than three sweeps (`cargo bench -p dray-benches`, group "one pass").
const PIECE: usize = 32 << 10;

/// A slot with more messages than this holds small files, each inside one piece or two: hashed in one call.
const MESSAGES_MANY: usize = 64;

/// State of one slot at a worker.
struct DigestWork {
    job: DigestJob,
    reply: Sender<Done>,
    waker: Waker,
    /// Messages to hash: the blocks, or the runs of a page blob's blocks.
    messages: Messages<OfMd5>,
    /// Parts of files that are hashed as a whole.
    wholes: Messages<OfMd5>,
    /// Spans whose SHA-256 was asked for.
    sha256s: Messages<OfSha256>,
    runs: Vec<Vec<StreamRange>>,
    crc: Crc64,
    span_crcs: Vec<u64>,
    /// A message began in an earlier slot, or continues in the next one.
    is_chained: bool,
}

/// Ranges of a slot, ascending, each hashed on its own.
struct Messages<A: Algorithm> {
    ranges: Vec<Range<usize>>,
    chains: Vec<Chain<A>>,
    /// Index of the first unfinished one.
    next: usize,
}

impl<A: Algorithm> Messages<A> {
    fn new(ranges: Vec<Range<usize>>) -> Self {
        Self { chains: vec![Chain::new(); ranges.len()], ranges, next: 0 }
    }

    /// The messages' parts inside the piece at `at`, each with its state.
    fn parts<'a>(&'a mut self, slot: &'a Slot, at: usize) -> impl Iterator<Item = (&'a mut Chain<A>, &'a [u8])> {
        let end = at + PIECE;
        while self.ranges.get(self.next).is_some_and(|message| message.end <= at) {
            self.next += 1;
        }
        let open = self.chains[self.next..].iter_mut().zip(&self.ranges[self.next..]);
        open.take_while(move |(_, message)| message.start < end)
            .map(move |(chain, message)| (chain, &slot[message.start.max(at)..message.end.min(end)]))
    }
}

impl DigestWork {
    fn new(Queued { mut job, reply, waker }: Queued) -> Self {
        let mut messages = Vec::with_capacity(job.spans.len());
        let mut runs = Vec::new();
        for span in &job.spans {
            if span.how == How::Pages {
                let found = runs_of(&job.slot[span.range.clone()]);
                let start = span.range.start;
                messages.extend(found.iter().map(|r| start + r.start.0 as usize..start + r.end().0 as usize));
                runs.push(found);
            } else {
                messages.push(span.range.clone());
            }
        }
        let mut messages = Messages::new(messages);
        let mut wholes = Messages::new(job.wholes.iter().map(|whole| job.spans[whole.span].range.clone()).collect());
        // A message that began in an earlier slot is always a slot's first.
        for (messages, started) in [(&mut messages, job.chain.take()), (&mut wholes, job.whole.take())] {
            if let (Some(first), Some(started)) = (messages.chains.first_mut(), started) {
                *first = started;
            }
        }
        let spans = job.spans.iter().filter(|_| job.sha256);
        let sha256s = Messages::new(spans.map(|span| span.range.clone()).collect());
        // Before the slot is sealed.
        let summed = job.spans.iter().filter(|_| job.sums_spans);
        let span_crcs = summed.map(|span| hash::crc64(&job.slot[span.range.clone()])).collect();
        let is_chained = job.spans.iter().any(|span| matches!(span.how, How::Chain { .. }));
        Self { job, reply, waker, messages, wholes, sha256s, runs, crc: Crc64::new(), span_crcs, is_chained }
    }

    fn is_many(&self) -> bool {
        self.messages.ranges.len() > MESSAGES_MANY && !self.is_chained
    }

    /// The messages inside the piece at `at`; many short messages have been hashed before.
    fn parts(&mut self, at: usize) -> impl Iterator<Item = (&mut Md5Chain, &[u8])> {
        let is_many = self.is_many();
        let Self { job, messages, wholes, .. } = self;
        let blocks = (!is_many).then(|| messages.parts(&job.slot, at));
        blocks.into_iter().flatten().chain(wholes.parts(&job.slot, at))
    }

    fn piece(&self, at: usize) -> Range<usize> {
        at.min(self.job.len)..(at + PIECE).min(self.job.len)
    }

    /// Adds the piece at `at` to the CRC.
    fn sum(&mut self, at: usize) {
        let piece = self.piece(at);
        self.crc.update(&self.job.slot[piece]);
    }

    /// Seals or opens the bytes in `piece`, which starts and ends at a sector.
    fn crypt(&mut self, piece: Range<usize>) {
        let Some(cipher) = &self.job.cipher else { return };
        for (range, place) in &self.job.crypt {
            let (from, to) = (range.start.max(piece.start), range.end.min(piece.end));
            if from < to {
                let place = *place + ByteLen((from - range.start) as u64);
                match self.job.direction {
                    CipherDirection::Seal => cipher.seal(place, &mut self.job.slot[from..to]),
                    CipherDirection::Open => cipher.open(place, &mut self.job.slot[from..to]),
                }
            }
        }
    }

    fn finish(self, md5s: Option<Vec<[u8; 16]>>) {
        let Self { job, reply, waker, messages, wholes, sha256s, runs, crc, span_crcs, .. } = self;
        let mut known = md5s.map(Vec::into_iter);
        let mut chains = messages.chains.into_iter();
        let mut finish = |chain: Option<Md5Chain>| -> [u8; 16] {
            known.as_mut().and_then(Iterator::next).unwrap_or_else(|| chain.unwrap_or_default().finish())
        };
        let mut runs = runs.into_iter();
        let mut chain = None;
        let (mut wholes, mut whole) = (job.wholes.iter().zip(wholes.chains).peekable(), None);
        let mut digests = Vec::with_capacity(job.spans.len());
        for (i, span) in job.spans.iter().enumerate() {
            digests.push(match span.how {
                How::Block | How::Chain { ends: true } => Digest::Block(finish(chains.next())),
                How::Pages => {
                    let of_run = |run: StreamRange| (run.start.0 as u32, run.len.0 as u32, finish(chains.next()));
                    Digest::Pages(runs.next().unwrap_or_default().into_iter().map(of_run).collect())
                }
                How::Chain { ends: false } => {
                    chain = chains.next();
                    Digest::Unfinished
                }
            });
            if let Some((of, chain)) = wholes.next_if(|(whole, _)| whole.span == i) {
                if of.ends {
                    digests.push(Digest::Whole(chain.finish()));
                } else {
                    digests.extend(of.is_told.then(|| Digest::Whole(chain.state())));
                    whole = Some(chain);
                }
            }
        }
        // A drive that has given up does not receive any more; its slot returns to the pool.
        let crc = crc.value();
        let sha256s = sha256s.chains.into_iter().map(Chain::finish).collect();
        let _ = reply.send(Done { tag: job.tag, slot: job.slot, digests, chain, whole, crc, span_crcs, sha256s });
        waker.wake();
    }
}

fn digest(jobs: Vec<Queued>) {
    let mut all: Vec<DigestWork> = jobs.into_iter().map(DigestWork::new).collect();
    let mut md5s: Vec<Option<Vec<[u8; 16]>>> = Vec::with_capacity(all.len());
    for work in &mut all {
        md5s.push(work.is_many().then(|| {
            if work.job.direction == CipherDirection::Open {
                work.crypt(0..work.job.len);
            }
            let messages: Vec<&[u8]> = work.messages.ranges.iter().map(|range| &work.job.slot[range.clone()]).collect();
            let mut out = vec![[0; 16]; messages.len()];
            hash::md5_many(&messages, &mut out);
            out
        }));
    }
    let longest = all.iter().map(|work| work.job.len).max().unwrap_or(0);
    for at in (0..longest).step_by(PIECE) {
        for work in all.iter_mut().filter(|work| work.job.direction == CipherDirection::Open && !work.is_many()) {
            work.crypt(work.piece(at));
        }
        {
            let mut parts: Vec<(&mut Md5Chain, &[u8])> = all.iter_mut().flat_map(|work| work.parts(at)).collect();
            hash::advance_many(&mut parts);
        }
        if all.iter().any(|work| work.job.sha256) {
            let parts = all.iter_mut().flat_map(|work| work.sha256s.parts(&work.job.slot, at));
            hash::advance_many(&mut parts.collect::<Vec<_>>());
        }
        for work in &mut all {
            work.sum(at);
            if work.job.direction == CipherDirection::Seal {
                work.crypt(work.piece(at));
            }
        }
    }
    for (work, md5s) in all.into_iter().zip(md5s) {
        work.finish(md5s);
    }
}

fn runs_of(block: &[u8]) -> Vec<StreamRange> {
    let mut runs = Vec::new();
    nonzero_runs(block, &mut runs);
    runs
}
