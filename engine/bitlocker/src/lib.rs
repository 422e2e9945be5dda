//! BitLocker's structures: boot sector, metadata regions, protectors, key files; built and read.
//!
//! Each structure cites its section of `docs/spec/bitlocker.md`, whose evidence is volumes made by Windows and the
//! behaviour of the open readers.
//!
//! * [`regions`]: placement of the reserved areas of a new volume.
//! * [`build`]: the bytes of a new volume's metadata and front.
//! * [`read`]: the metadata of a volume, and unlocking it.
//! * [`map`]: from bytes of the unlocked volume to bytes of the device.
//! * [`keys`]: the forms of keys that unlock a volume.
//!
//! # Example
//!
//! A small volume in memory, unlocked with its recovery password. Randomness is an argument: keys of a volume that anyone
//! shall trust come from the kernel, not from a seed.
//!
//! ```
//! use std::io;
//!
//! use dray_bitlocker::build::{Spec, VolumeSecrets};
//! use dray_bitlocker::crypt::Cipher;
//! use dray_bitlocker::entropy::Seeded;
//! use dray_bitlocker::keys::KeyInput;
//! use dray_bitlocker::map::Source;
//! use dray_bitlocker::read::Volume;
//! use dray_bitlocker::regions::Regions;
//! use dray_bitlocker::units::{ByteLen, VolumeOffset, ClusterSize, DiskShape, FileTime, SectorSize};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cluster = ClusterSize::from_bytes(4096).ok_or("no size of a cluster")?;
//! let regions = Regions::place(ByteLen(68 << 20), cluster, SectorSize::S512)?;
//! let spec = Spec {
//!     regions,
//!     cipher: Cipher::XtsAes128,
//!     disk: DiskShape { sectors_per_track: 63, heads: 255, hidden_sectors: 2048 },
//!     description: "example".into(),
//!     used_space_only: true,
//!     external_key: false,
//!     user_password: false,
//!     created: FileTime::from_unix(1_700_000_000, 0),
//! };
//! let secrets = VolumeSecrets::draw(spec, &mut Seeded::new(1));
//! let password = secrets.password().printed();
//!
//! let mut image = vec![0; 68 << 20];
//! let mut write = |at: VolumeOffset, bytes: &[u8]| image[at.0 as usize..][..bytes.len()].copy_from_slice(bytes);
//! write(VolumeOffset(0), &secrets.front()[..]);
//! let region = secrets.region(&mut |_| {});
//! for place in regions.metadata() {
//!     write(place.start, &region[..]);
//! }
//! // What the file system's first sectors hold is stored elsewhere; the mapping says where.
//! let text = [0x42; 4096];
//! let cipher = secrets.sector_cipher()?;
//! for segment in regions.mapping().map(VolumeOffset(0), ByteLen(text.len() as u64)) {
//!     let Source::Sealed(stored) = segment.source else { continue };
//!     let mut bytes = text[segment.range.start.0 as usize..][..segment.range.len.0 as usize].to_vec();
//!     cipher.seal(stored, &mut bytes);
//!     write(stored, &bytes);
//! }
//!
//! let mut reader = |at: VolumeOffset, into: &mut [u8]| -> io::Result<()> {
//!     let stored = image.get(at.0 as usize..).and_then(|rest| rest.get(..into.len()));
//!     into.copy_from_slice(stored.ok_or(io::ErrorKind::UnexpectedEof)?);
//!     Ok(())
//! };
//! let volume = Volume::open(&mut reader)?.ok_or("no BitLocker volume")?;
//! let key = KeyInput::parse(password.expose().as_bytes())?;
//! let unlocked = volume.unlock(&key, &mut |_, _| {})?;
//! let mut read = [0; 4096];
//! unlocked.open_range(VolumeOffset(0), &mut read, &mut reader)?;
//! assert_eq!(read, text);
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

use dray_base::text;
pub use dray_base::{entropy, units};
pub use dray_crypt as crypt;

pub mod build;
mod datum;
mod format;
pub mod keys;
pub mod map;
pub mod read;
pub mod regions;
