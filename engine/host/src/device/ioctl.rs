//! Queries and requests to a device that need `ioctl` or `fcntl`.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use crate::units::DeviceRange;

// Numbers from the kernel's <linux/fs.h>; those with a size in them are for 64-bit machines.
const BLKROGET: u32 = 0x125E;
const BLKRRPART: u32 = 0x125F;
const BLKFLSBUF: u32 = 0x1261;
const BLKSSZGET: u32 = 0x1268;
const BLKDISCARD: u32 = 0x1277;
const BLKPBSZGET: u32 = 0x127B;
const BLKGETSIZE64: u32 = 0x8008_1272;
/// `BLKGETDISKSEQ`, since 5.15.
const BLKGETDISKSEQ: u32 = 0x8008_1280;
/// <asm-generic/fcntl.h>
const F_SETSIG: libc::c_int = 10;
/// <linux/loop.h>
const LOOP_GET_STATUS64: u32 = 0x4C05;
/// <scsi/sg.h>
const SG_IO: u32 = 0x2285;

#[cfg(not(target_pointer_width = "64"))]
compile_error!("BLKGETSIZE64 is given for 64-bit machines only");

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn read_int(device: &File, request: u32) -> io::Result<u32> {
    let mut value: libc::c_int = 0;
    // SAFETY: the requests given to this function write one `int`, and `value` is one that lives across the call.
    check(unsafe { libc::ioctl(device.as_raw_fd(), request as libc::Ioctl, &raw mut value) })?;
    u32::try_from(value).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the kernel gave a negative size"))
}

/// Runs a request without argument or result.
fn plain(device: &File, request: u32) -> io::Result<()> {
    // SAFETY: the requests given to this function touch no memory of ours.
    check(unsafe { libc::ioctl(device.as_raw_fd(), request as libc::Ioctl, 0) })
}

/// Size of a block device in bytes.
pub(super) fn size(device: &File) -> io::Result<u64> {
    let mut size: u64 = 0;
    // SAFETY: BLKGETSIZE64 writes eight bytes, and `size` lives across the call.
    check(unsafe { libc::ioctl(device.as_raw_fd(), BLKGETSIZE64 as libc::Ioctl, &raw mut size) })?;
    Ok(size)
}

/// Sequence number of the medium in a block device, unique since the machine started.
pub(super) fn disk_sequence(device: &File) -> io::Result<u64> {
    let mut sequence: u64 = 0;
    // SAFETY: BLKGETDISKSEQ writes eight bytes, and `sequence` lives across the call.
    check(unsafe { libc::ioctl(device.as_raw_fd(), BLKGETDISKSEQ as libc::Ioctl, &raw mut sequence) })?;
    Ok(sequence)
}

/// `struct loop_info64` of <linux/loop.h>.
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

const _: () = assert!(size_of::<LoopInfo>() == 232 && std::mem::offset_of!(LoopInfo, file_name) == 56);

/// Backing file of a loop device: its `st_dev`, `st_ino` and `st_rdev`.
pub(super) fn loop_backing(device: &File) -> io::Result<(u64, u64, u64)> {
    let mut info = std::mem::MaybeUninit::<LoopInfo>::zeroed();
    // SAFETY: LOOP_GET_STATUS64 writes one `loop_info64`, whose layout is asserted above, and `info` lives across the call.
    check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64 as libc::Ioctl, info.as_mut_ptr()) })?;
    // SAFETY: zeroed before, and integers only.
    let info = unsafe { info.assume_init() };
    Ok((info.device, info.inode, info.rdevice))
}

fn whole_file(kind: libc::c_int) -> libc::flock {
    // SAFETY: a structure of integers, for which zero is a value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock
}

/// A lock held through another descriptor on any byte of the file (POSIX or OFD): `Some` with the process id, where it
/// is known. Locks by `flock(2)` are separate.
pub(super) fn foreign_lock(file: &File) -> io::Result<Option<Option<u32>>> {
    let mut lock = whole_file(libc::F_WRLCK);
    // SAFETY: F_OFD_GETLK reads and writes one `flock`, and `lock` lives across the call.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) })?;
    let is_held = libc::c_int::from(lock.l_type) != libc::F_UNLCK;
    Ok(is_held.then(|| u32::try_from(lock.l_pid).ok().filter(|pid| *pid > 0)))
}

/// Locks every byte of the file for this descriptor (OFD), as virtual machines and FUSE drivers lock their images.
///
/// # Errors
/// `WouldBlock` when another holds one; the file system's error, which may not support locks.
pub(super) fn lock_bytes(file: &File) -> io::Result<()> {
    let lock = whole_file(libc::F_WRLCK);
    // SAFETY: F_OFD_SETLK reads one `flock`, and `lock` lives across the call.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) })
}

/// Whether anything at all has the file open for writing: a process in any container, or the kernel itself. `file` must
/// be open for reading only. Determined through a lease (`fcntl(2)`, `F_SETLEASE`), which is released at once.
///
/// # Errors
/// File systems without leases, and files of others.
pub(super) fn is_open_for_writing(file: &File) -> io::Result<bool> {
    let fd = file.as_raw_fd();
    // An open at this very moment sends a signal: one that is ignored by default.
    // SAFETY: takes numbers only.
    check(unsafe { libc::fcntl(fd, F_SETSIG, libc::SIGURG) })?;
    // SAFETY: takes numbers only.
    match check(unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK) }) {
        Ok(()) => {
            // SAFETY: takes numbers only.
            let _ = unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK) };
            Ok(false)
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) => Err(error),
    }
}

/// Logical sector size in bytes.
pub(super) fn logical_sector(device: &File) -> io::Result<u32> {
    read_int(device, BLKSSZGET)
}

/// Physical sector size in bytes.
pub(super) fn physical_sector(device: &File) -> io::Result<u32> {
    read_int(device, BLKPBSZGET)
}

/// Whether the kernel refuses writes to the device.
pub(super) fn read_only(device: &File) -> io::Result<bool> {
    read_int(device, BLKROGET).map(|value| value != 0)
}

/// Writes out and drops the kernel's cache of the device.
pub(super) fn flush_buffers(device: &File) -> io::Result<()> {
    plain(device, BLKFLSBUF)
}

/// Reads the partition table again.
pub(super) fn reread_partitions(device: &File) -> io::Result<()> {
    plain(device, BLKRRPART)
}

/// Discards a range of the device. Its contents afterwards are the device's choice.
pub(super) fn discard(device: &File, range: DeviceRange) -> io::Result<()> {
    let range: [u64; 2] = [range.start.0, range.len.0];
    // SAFETY: BLKDISCARD reads two 64-bit numbers, and `range` lives across the call.
    check(unsafe { libc::ioctl(device.as_raw_fd(), BLKDISCARD as libc::Ioctl, range.as_ptr()) })
}

/// Frees a range of a file; it reads as zeros then. The length stays.
pub(super) fn punch_hole(file: &File, range: DeviceRange) -> io::Result<()> {
    let too_far = |_| io::Error::new(io::ErrorKind::InvalidInput, "a range past 2^63");
    let (start, len) = (i64::try_from(range.start.0).map_err(too_far)?, i64::try_from(range.len.0).map_err(too_far)?);
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: takes numbers only.
    check(unsafe { libc::fallocate(file.as_raw_fd(), mode, start, len) })
}

/// Forgets the cached pages of a file; a hint.
pub(super) fn forget_pages(file: &File) -> io::Result<()> {
    // SAFETY: takes numbers only.
    match unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) } {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// `struct sg_io_hdr` of <scsi/sg.h>.
#[repr(C)]
struct SgIoHeader {
    interface_id: libc::c_int,
    dxfer_direction: libc::c_int,
    cmd_len: u8,
    mx_sb_len: u8,
    iovec_count: u16,
    dxfer_len: u32,
    dxferp: *mut libc::c_void,
    cmdp: *mut u8,
    sbp: *mut u8,
    timeout: u32,
    flags: u32,
    pack_id: libc::c_int,
    usr_ptr: *mut libc::c_void,
    status: u8,
    masked_status: u8,
    msg_status: u8,
    sb_len_wr: u8,
    host_status: u16,
    driver_status: u16,
    resid: libc::c_int,
    duration: u32,
    info: u32,
}

const _: () = assert!(size_of::<SgIoHeader>() == 88 && std::mem::offset_of!(SgIoHeader, status) == 64);

/// Time-out for identifying a drive, in milliseconds.
const IDENTIFY_MS: u32 = 5_000;

/// ATA IDENTIFY DEVICE through the SCSI layer (SAT, ATA PASS-THROUGH (16)): the identity of the drive behind a bridge.
/// Reads only.
///
/// # Errors
/// `Unsupported` when the device or its bridge does not pass ATA commands on.
pub(super) fn ata_identify(device: &File) -> io::Result<[u8; 512]> {
    let mut data = [0_u8; 512];
    let mut sense = [0_u8; 32];
    // Operation 85h; protocol 4 (PIO data-in); one block from the device, its count in the sector count; command ECh.
    let mut command: [u8; 16] = [0x85, 4 << 1, 0x0E, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xEC, 0];
    let mut header = SgIoHeader {
        interface_id: libc::c_int::from(b'S'),
        dxfer_direction: -3,
        cmd_len: command.len() as u8,
        mx_sb_len: sense.len() as u8,
        iovec_count: 0,
        dxfer_len: data.len() as u32,
        dxferp: data.as_mut_ptr().cast(),
        cmdp: command.as_mut_ptr(),
        sbp: sense.as_mut_ptr(),
        timeout: IDENTIFY_MS,
        flags: 0,
        pack_id: 0,
        usr_ptr: std::ptr::null_mut(),
        status: 0,
        masked_status: 0,
        msg_status: 0,
        sb_len_wr: 0,
        host_status: 0,
        driver_status: 0,
        resid: 0,
        duration: 0,
        info: 0,
    };
    // SAFETY: the header has the layout of the kernel's, and its three pointers name local arrays of the lengths given
    // next to them; SG_IO is done with them when it returns.
    check(unsafe { libc::ioctl(device.as_raw_fd(), SG_IO as libc::Ioctl, &raw mut header) })?;
    if header.status != 0 || header.host_status != 0 || header.driver_status & 0x0F != 0 || header.resid != 0 {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(data)
}
