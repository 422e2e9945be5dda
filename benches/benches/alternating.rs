//! Variants in turns, many short rounds, the best of each: on a machine with other work a variant that runs later than
//! another can meet a different machine. Prints GiB a second of processor time, and ratios to the first of each group.
//!
//! `cargo bench -p dray-benches --bench alternating`

use std::time::Duration;

use criterion::measurement::Measurement;
use dray_base::entropy::{Entropy, Seeded};
use dray_base::units::{SectorSize, VolumeOffset};
#[cfg(ipsec_mb)]
use dray_benches::peers;
use dray_benches::{CpuTime, SLOT, in_pieces};
use dray_crypt::{Cipher, SectorCipher, Unit};

const ROUNDS: usize = 60;
const PIECE: usize = 32 << 10;

/// The work done on the bytes.
type Work<'a> = Box<dyn FnMut(&mut [u8]) + 'a>;

/// A variant: its name, the bytes that it processes, and the work.
type Variant<'a> = (&'a str, usize, Work<'a>);

fn compare(what: &str, data: &mut [u8], variants: &mut [Variant<'_>]) {
    let mut best = vec![Duration::MAX; variants.len()];
    for _ in 0..ROUNDS {
        for ((_, len, work), best) in variants.iter_mut().zip(&mut best) {
            let started = CpuTime::Thread.start();
            work(&mut data[..*len]);
            *best = (*best).min(CpuTime::Thread.end(started));
        }
    }
    let rates =
        variants.iter().zip(&best).map(|((_, len, _), best)| *len as f64 / best.as_secs_f64() / f64::from(1 << 30));
    let rates: Vec<f64> = rates.collect();
    println!("{what}");
    for ((name, ..), rate) in variants.iter().zip(&rates) {
        println!("    {name:40} {rate:6.2} GiB/s {:5.2}", rate / rates[0]);
    }
}

fn pass(cipher: &SectorCipher) -> Work<'_> {
    Box::new(move |data| in_pieces(&mut data.chunks_mut(SLOT).collect::<Vec<_>>(), PIECE, cipher))
}

fn main() {
    let mut data = vec![0; 16 * SLOT];
    Seeded::new(6).fill(&mut data);
    let key = [7; 32];
    for sector in [SectorSize::S512, SectorSize::S4096] {
        let on = |unit| SectorCipher::on(unit, Cipher::AesCbc256, &key, sector).expect("the length is right");
        let (narrow, wide) = (on(Unit::Crate), on(Unit::Widest));
        compare(
            &format!("hash, CRC and AES-CBC-256, sectors of {} bytes, slots of 4 MiB", sector.bytes()),
            &mut data,
            &mut [
                ("8 slots, cipher by `aes`", 8 * SLOT, pass(&narrow)),
                ("8 slots", 8 * SLOT, pass(&wide)),
                ("16 slots, cipher by `aes`", 16 * SLOT, pass(&narrow)),
                ("16 slots", 16 * SLOT, pass(&wide)),
            ],
        );
        #[cfg(ipsec_mb)]
        let peer = &peers::IpsecMb::new(&key);
        let at = VolumeOffset(1 << 40);
        let mut seals: Vec<Variant<'_>> = Vec::new();
        let mut opens: Vec<Variant<'_>> = Vec::new();
        #[cfg(ipsec_mb)]
        let bytes = sector.bytes() as usize;
        #[cfg(ipsec_mb)]
        {
            seals.push(("IPsec-MB", SLOT, Box::new(move |data| peer.cbc(true, at.0, bytes, data))));
            opens.push(("IPsec-MB", SLOT, Box::new(move |data| peer.cbc(false, at.0, bytes, data))));
        }
        seals.push(("ours, by `aes`", SLOT, Box::new(|data| narrow.seal(at, data))));
        seals.push(("ours", SLOT, Box::new(|data| wide.seal(at, data))));
        opens.push(("ours, by `aes`", SLOT, Box::new(|data| narrow.open(at, data))));
        opens.push(("ours", SLOT, Box::new(|data| wide.open(at, data))));
        compare(&format!("AES-CBC-256 sealing, sectors of {} bytes, 4 MiB", sector.bytes()), &mut data, &mut seals);
        compare(&format!("AES-CBC-256 opening, sectors of {} bytes, 4 MiB", sector.bytes()), &mut data, &mut opens);
    }
}
