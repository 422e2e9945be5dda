//! The metafiles' records, the boot sector, `$AttrDef` (docs/spec/ntfs.md#boot-sector, docs/spec/ntfs.md#metafiles,
//! docs/spec/ntfs.md#security and docs/spec/ntfs.md#extend).

use zerocopy::{FromZeros, IntoBytes};

use super::Times;
use super::index::{self, ViewEntry};
use super::layout::{Layout, Node};
use super::record::{self, Head, Record, Sizes, Standard};
use super::security::{self, ID_SYSTEM_READ, ID_SYSTEM_WRITE, Security};
use crate::format::{
    AttrDefRow, AttrType, BOOT_BYTES, BootSector, INDEX_BLOCK, StandardInformation, VolumeInformation, collation,
    file_attribute, metafile, record_flag, units,
};
use crate::units::{ClusterSize, DiskShape, Extent, SectorSize};
use crate::upcase;

/// Metafiles that have a name; from 24 on they are in `$Extend`.
pub(super) const NAMES: [(u32, &str); 15] = [
    (metafile::MFT, "$MFT"),
    (metafile::MFT_MIRR, "$MFTMirr"),
    (metafile::LOG_FILE, "$LogFile"),
    (metafile::VOLUME, "$Volume"),
    (metafile::ATTR_DEF, "$AttrDef"),
    (metafile::ROOT, "."),
    (metafile::BITMAP, "$Bitmap"),
    (metafile::BOOT, "$Boot"),
    (metafile::BAD_CLUS, "$BadClus"),
    (metafile::SECURE, "$Secure"),
    (metafile::UP_CASE, "$UpCase"),
    (metafile::EXTEND, "$Extend"),
    (metafile::QUOTA, "$Quota"),
    (metafile::OBJ_ID, "$ObjId"),
    (metafile::REPARSE, "$Reparse"),
];

/// Metafiles of which only the name in the root's index exists: so on every volume that Windows formatted
/// (docs/spec/ntfs.md#metafiles).
pub(super) const ONLY_NAMED: [u32; 8] = [
    metafile::MFT_MIRR,
    metafile::LOG_FILE,
    metafile::VOLUME,
    metafile::ATTR_DEF,
    metafile::BITMAP,
    metafile::BOOT,
    metafile::BAD_CLUS,
    metafile::UP_CASE,
];

/// Free records among the metafiles: reserved for extension records of `$MFT`.
pub(super) const FREE: std::ops::Range<u32> = 16..24;
/// Records in use without a name or content.
const RESERVED: std::ops::Range<u32> = 12..16;

pub(crate) use crate::format::I30;
pub(crate) const SDS: [u16; 4] = units(b"$SDS");
pub(crate) const SDH: [u16; 4] = units(b"$SDH");
pub(crate) const SII: [u16; 4] = units(b"$SII");
const BAD: [u16; 4] = units(b"$Bad");
const INFO: [u16; 5] = units(b"$Info");
const INDEX_O: [u16; 2] = units(b"$O");
const INDEX_Q: [u16; 2] = units(b"$Q");
const INDEX_R: [u16; 2] = units(b"$R");

/// Undocumented; set on every volume that Windows 8 to 11 released cleanly (docs/spec/ntfs.md#volume-information).
const VOLUME_FLAGS: u16 = 0x0080;

/// Facts of a metafile for its name and `$STANDARD_INFORMATION`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub allocated: u64,
    pub data: u64,
    pub attributes: u32,
    pub directory: bool,
    pub security_id: u32,
}

/// Facts of a metafile.
pub(super) fn facts(layout: &Layout, record: u32) -> Facts {
    let geometry = &layout.geometry;
    let data = match record {
        metafile::MFT => layout.mft.len.0 * geometry.cluster.bytes(),
        metafile::MFT_MIRR => geometry.mirror_len(),
        metafile::LOG_FILE => geometry.log_len(),
        metafile::ATTR_DEF => ATTR_DEF_BYTES as u64,
        metafile::BITMAP => geometry.bitmap_len(),
        metafile::BOOT => BOOT_BYTES,
        metafile::UP_CASE => upcase::BYTES as u64,
        _ => 0,
    };
    let more = match record {
        metafile::SECURE | metafile::QUOTA | metafile::OBJ_ID | metafile::REPARSE => file_attribute::VIEW_INDEX,
        _ => 0,
    };
    let writable = matches!(record, metafile::VOLUME | metafile::SECURE | metafile::EXTEND..);
    Facts {
        allocated: geometry.clusters_for(data) * geometry.cluster.bytes(),
        data,
        attributes: file_attribute::HIDDEN | file_attribute::SYSTEM | more,
        directory: matches!(record, metafile::ROOT | metafile::EXTEND),
        security_id: if writable { ID_SYSTEM_WRITE } else { ID_SYSTEM_READ },
    }
}

/// The descriptor stored in a record itself, together with the old form of `$STANDARD_INFORMATION`.
pub(super) fn own_descriptor(record: u32) -> Option<Vec<u8>> {
    match record {
        metafile::ATTR_DEF | metafile::BOOT => Some(security::system_read()),
        metafile::ROOT => Some(security::root()),
        _ if RESERVED.contains(&record) => Some(security::system_write()),
        _ => None,
    }
}

/// Bytes of the root directory's attributes other than its index.
pub(super) fn root_base_len() -> usize {
    record::resident_len(0, size_of::<StandardInformation>())
        + record::resident_len(0, record::file_name_len(1))
        + record::resident_len(0, security::root().len())
}

/// Bytes of the attributes of `$Secure` when both indexes are in the record.
pub(super) fn secure_record_len(security: &Security) -> usize {
    let root =
        |view: Vec<ViewEntry>| record::resident_len(4, index::root_value_len(view.iter().map(ViewEntry::len).sum()));
    // One run takes at most 16 bytes of mapping pairs.
    let sds = record::non_resident_len(4, std::iter::empty()) + 16;
    record::resident_len(0, record::STANDARD_INFORMATION)
        + record::resident_len(0, record::file_name_len("$Secure".len()))
        + sds
        + root(security.by_hash())
        + root(security.by_id())
}

/// Writes the record of a metafile; directories are written by the caller.
pub(super) fn render(layout: &Layout, number: u32, node: &Node, name: &[u16], out: &mut [u8]) {
    let mut record = Record::begin(out);
    let descriptor = own_descriptor(number);
    record.standard(Standard {
        times: node.name.times,
        attributes: node.attributes,
        security_id: descriptor.is_none().then_some(node.security_id),
    });
    let named = !RESERVED.contains(&number);
    if named {
        record.file_name(&node.name, name);
    }
    if let Some(descriptor) = descriptor {
        record.resident(AttrType::SecurityDescriptor, &[], &descriptor);
    }
    let cluster = layout.geometry.cluster;
    let sizes = Sizes::full(node.name.allocated, node.name.data);
    let one = |extent: Extent| std::iter::once(extent);
    let front = &layout.front;
    let mut data = |extent| record.non_resident(AttrType::Data, &[], sizes, one(extent));
    match number {
        metafile::MFT => {
            record.non_resident(AttrType::Data, &[], sizes, layout.space.extents(layout.mft));
            let bitmap = Sizes::full(cluster.len_of(layout.mft_bitmap.len).0, layout.mft_bitmap_len());
            record.non_resident(AttrType::Bitmap, &[], bitmap, layout.space.extents(layout.mft_bitmap));
        }
        metafile::MFT_MIRR => data(front.mirror),
        metafile::LOG_FILE => data(front.log),
        metafile::ATTR_DEF => data(front.attr_def),
        metafile::BOOT => data(front.boot),
        metafile::BITMAP => record.non_resident(AttrType::Data, &[], sizes, layout.space.extents(layout.bitmap)),
        metafile::VOLUME => {
            let label: Vec<u8> = layout.spec.label.encode_utf16().flat_map(u16::to_le_bytes).collect();
            record.resident(AttrType::VolumeName, &[], &label);
            let info = VolumeInformation { unused: 0.into(), major: 3, minor: 1, flags: VOLUME_FLAGS.into() };
            record.resident(AttrType::VolumeInformation, &[], info.as_bytes());
            record.resident(AttrType::Data, &[], &[]);
        }
        metafile::BAD_CLUS => {
            record.resident(AttrType::Data, &[], &[]);
            let clusters = layout.geometry.clusters;
            let len = clusters * cluster.bytes();
            record.hole(&BAD, Sizes { allocated: len, data: len, valid: 0 }, clusters);
        }
        metafile::SECURE => secure(layout, &mut record),
        metafile::UP_CASE => {
            data(front.up_case);
            record.resident(AttrType::Data, &INFO, &up_case_info());
        }
        metafile::QUOTA => {
            let (owners, quotas) = quota(node.name.times);
            view(&mut record, &INDEX_O, collation::SID, cluster, &owners);
            view(&mut record, &INDEX_Q, collation::ULONG, cluster, &quotas);
        }
        metafile::OBJ_ID => view(&mut record, &INDEX_O, collation::ULONGS, cluster, &[]),
        metafile::REPARSE => view(&mut record, &INDEX_R, collation::ULONGS, cluster, &[]),
        _ => record.resident(AttrType::Data, &[], &[]),
    }
    let flags = record_flag::IN_USE
        | match number {
            metafile::SECURE => record_flag::VIEW_INDEX,
            metafile::QUOTA | metafile::OBJ_ID | metafile::REPARSE => record_flag::IN_EXTEND | record_flag::VIEW_INDEX,
            _ => 0,
        };
    record.finish(Head { number, sequence: Layout::sequence(number), links: u16::from(named), flags });
}

fn view(record: &mut Record<'_>, name: &[u16], rule: u32, cluster: ClusterSize, entries: &[ViewEntry]) {
    record.resident_with(AttrType::IndexRoot, name, |out| index::view_root(out, rule, cluster, entries));
}

fn secure(layout: &Layout, record: &mut Record<'_>) {
    let cluster = layout.geometry.cluster;
    let front = &layout.front;
    let sds = Sizes::full(cluster.len_of(front.sds.len).0, layout.security.sds_len());
    record.non_resident(AttrType::Data, &SDS, sds, std::iter::once(front.sds));
    match front.sdh {
        None => view(record, &SDH, collation::SECURITY_HASH, cluster, &layout.security.by_hash()),
        Some(_) => record.resident_with(AttrType::IndexRoot, &SDH, |out| {
            index::large_root(out, (0, collation::SECURITY_HASH), cluster, 0)
        }),
    }
    view(record, &SII, collation::ULONG, cluster, &layout.security.by_id());
    if let Some(extent) = front.sdh {
        let block = Sizes::full(cluster.len_of(extent.len).0, INDEX_BLOCK as u64);
        record.non_resident(AttrType::IndexAllocation, &SDH, block, std::iter::once(extent));
        let mut bits = [0; 8];
        index::bitmap(1, 0, &mut bits);
        record.resident(AttrType::Bitmap, &SDH, &bits);
    }
}

/// The stream `$Info` of `$UpCase` (docs/spec/ntfs.md#upcase-table-and-collation): length, CRC-64, and a version of
/// Windows that has this table, the same as in BitLocker's metadata.
fn up_case_info() -> [u8; 32] {
    const WINDOWS: [u32; 3] = [10, 0, 17763];
    let mut out = [0; 32];
    let len = out.len() as u64;
    out[..8].copy_from_slice(&len.to_le_bytes());
    out[8..16].copy_from_slice(&upcase::CRC64.to_le_bytes());
    for (part, number) in out[16..28].chunks_mut(4).zip(WINDOWS) {
        part.copy_from_slice(&number.to_le_bytes());
    }
    out
}

/// `$O` and `$Q`: the defaults and the administrators, unlimited, as every new volume has them.
fn quota(times: Times) -> (Vec<ViewEntry>, Vec<ViewEntry>) {
    const DEFAULTS: u32 = 1;
    const ADMINISTRATORS: u32 = 0x100;
    const VERSION: u32 = 2;
    const DEFAULT_LIMITS: u32 = 1;
    let sid = security::administrators();
    let control = |sid: &[u8]| {
        let mut data = Vec::new();
        data.extend(VERSION.to_le_bytes());
        data.extend(DEFAULT_LIMITS.to_le_bytes());
        data.extend(0u64.to_le_bytes());
        data.extend(times.changed.0.to_le_bytes());
        data.extend((-1i64).to_le_bytes());
        data.extend((-1i64).to_le_bytes());
        data.extend(0u64.to_le_bytes());
        data.extend(sid);
        data
    };
    let entry = |key: &[u8], data: Vec<u8>| ViewEntry { key: key.to_vec(), data, padding: [0; 4] };
    let owners = vec![entry(&sid, ADMINISTRATORS.to_le_bytes().to_vec())];
    let quotas =
        vec![entry(&DEFAULTS.to_le_bytes(), control(&[])), entry(&ADMINISTRATORS.to_le_bytes(), control(&sid))];
    (owners, quotas)
}

/// The size codes of the boot sector: clusters, or the negative logarithm of bytes when less than one.
fn size_code(bytes: u64, cluster: ClusterSize) -> i8 {
    if bytes >= cluster.bytes() { (bytes / cluster.bytes()) as i8 } else { -(bytes.trailing_zeros() as i8) }
}

/// Disk geometry for the boot sector (docs/spec/ntfs.md#boot-sector).
pub(super) fn disk_shape(layout: &Layout) -> DiskShape {
    let (sectors_per_track, heads) = match layout.geometry.sector {
        SectorSize::S512 => (63, 255),
        SectorSize::S4096 => (1, 1),
    };
    let hidden_sectors = u32::try_from(layout.spec.hidden_sectors).unwrap_or(0);
    DiskShape { sectors_per_track, heads, hidden_sectors }
}

/// The boot sector, for the first 512 bytes of the volume and of the partition's last sector.
pub(super) fn boot_sector(layout: &Layout) -> BootSector {
    let geometry = &layout.geometry;
    let per_cluster = geometry.cluster.bytes() / geometry.sector.bytes();
    let disk = disk_shape(layout);
    let mut code = [0; 426];
    // Not bootable: stop, and again after an interrupt (hlt; jmp -3).
    code[..3].copy_from_slice(&[0xF4, 0xEB, 0xFD]);
    let mft = layout.space.extents(layout.mft).next().map_or(0, |extent| extent.lcn.0);
    let mut boot = BootSector::new_zeroed();
    boot.jump = [0xEB, 0x52, 0x90];
    boot.oem = *b"NTFS    ";
    boot.sector_bytes = (geometry.sector.bytes() as u16).into();
    boot.sectors_per_cluster =
        if per_cluster <= 128 { per_cluster as u8 } else { (per_cluster.trailing_zeros() as u8).wrapping_neg() };
    boot.media = 0xF8;
    boot.sectors_per_track = disk.sectors_per_track.into();
    boot.heads = disk.heads.into();
    boot.hidden_sectors = disk.hidden_sectors.into();
    boot.constant_0x24 = [0x80, 0, 0x80, 0];
    boot.sectors = geometry.sectors.into();
    boot.mft = mft.into();
    boot.mft_mirror = layout.front.mirror.lcn.0.into();
    boot.record_size = size_code(geometry.record_bytes as u64, geometry.cluster);
    boot.block_size = size_code(INDEX_BLOCK as u64, geometry.cluster);
    boot.serial = layout.spec.serial.into();
    boot.code = code;
    boot.signature = [0x55, 0xAA];
    boot
}

/// `(type, name, flags, min, max)`; a max of -1 is none.
#[rustfmt::skip]
const ATTR_DEFS: [(AttrType, &str, u32, u64, i64); 15] = [
    (AttrType::StandardInformation, "$STANDARD_INFORMATION", 0x40, 48, 72),
    (AttrType::AttributeList, "$ATTRIBUTE_LIST", 0x80, 0, -1),
    (AttrType::FileName, "$FILE_NAME", 0x42, 68, 578),
    (AttrType::ObjectId, "$OBJECT_ID", 0x40, 0, 256),
    (AttrType::SecurityDescriptor, "$SECURITY_DESCRIPTOR", 0x80, 0, -1),
    (AttrType::VolumeName, "$VOLUME_NAME", 0x40, 2, 256),
    (AttrType::VolumeInformation, "$VOLUME_INFORMATION", 0x40, 12, 12),
    (AttrType::Data, "$DATA", 0, 0, -1),
    (AttrType::IndexRoot, "$INDEX_ROOT", 0x40, 0, -1),
    (AttrType::IndexAllocation, "$INDEX_ALLOCATION", 0x80, 0, -1),
    (AttrType::Bitmap, "$BITMAP", 0x80, 0, -1),
    (AttrType::ReparsePoint, "$REPARSE_POINT", 0x80, 0, 16384),
    (AttrType::EaInformation, "$EA_INFORMATION", 0x40, 8, 8),
    (AttrType::Ea, "$EA", 0, 0, 65536),
    (AttrType::LoggedUtilityStream, "$LOGGED_UTILITY_STREAM", 0x80, 0, 65536),
];

/// Bytes of `$AttrDef`: its rows and an empty one.
pub(super) const ATTR_DEF_BYTES: usize = (ATTR_DEFS.len() + 1) * size_of::<AttrDefRow>();
const _: () = assert!(ATTR_DEF_BYTES == 2560);

/// The content of `$AttrDef`.
pub(super) fn attr_defs() -> Vec<u8> {
    let mut out = Vec::with_capacity(ATTR_DEF_BYTES);
    for (kind, name, flags, min, max) in ATTR_DEFS {
        let mut row = AttrDefRow::new_zeroed();
        for (to, unit) in row.name.iter_mut().zip(name.encode_utf16()) {
            to.set(unit);
        }
        row.kind.set(kind as u32);
        row.flags.set(flags);
        row.min.set(min);
        row.max.set(max as u64);
        out.extend(row.as_bytes());
    }
    out.resize(ATTR_DEF_BYTES, 0);
    out
}

/// Writes the record of a directory, metafile or not.
pub(super) fn render_directory(
    number: u32,
    node: &Node,
    name: &[u16],
    out: &mut [u8],
    index: impl FnOnce(&mut Record<'_>),
) {
    let mut record = Record::begin(out);
    let descriptor = own_descriptor(number);
    record.standard(Standard {
        times: node.name.times,
        attributes: node.attributes,
        security_id: descriptor.is_none().then_some(node.security_id),
    });
    record.file_name(&node.name, name);
    if let Some(descriptor) = descriptor {
        record.resident(AttrType::SecurityDescriptor, &[], &descriptor);
    }
    index(&mut record);
    let flags = record_flag::IN_USE | record_flag::DIRECTORY;
    record.finish(Head { number, sequence: Layout::sequence(number), links: 1, flags });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn judge_attr_def_is_the_one_of_windows() {
        use sha2::{Digest, Sha256};
        let hex: String = Sha256::digest(attr_defs()).iter().map(|byte| format!("{byte:02x}")).collect();
        // Windows 2003, 10, 11 and mkntfs alike (docs/spec/ntfs.md#metafiles).
        assert_eq!(hex, "d7de5b1b2f79f45f235ceb1adbc46908ed64eae174eb90ed66aefe5f25165da3");
    }

    #[test]
    fn size_codes_are_those_of_the_table() {
        let code = |bytes, cluster| size_code(bytes, ClusterSize::from_bytes(cluster).unwrap());
        assert_eq!([512, 1024, 2048, 65536].map(|cluster| code(1024, cluster)), [2, 1, -10, -10]);
        assert_eq!([512, 1024, 4096, 65536].map(|cluster| code(4096, cluster)), [8, 4, 1, -12]);
    }
}
