//! Seeds for fuzzing: pieces of volumes made by Windows and mkntfs, and the documented forms of Microsoft's files.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use dray_base::units::{ByteLen, VolumeOffset};
use dray_bitlocker::map;
use dray_bitlocker::read as bitlocker;
use dray_ntfs::read::{ReadAt, ReadError, Volume};

use super::{BOOT_LEN, COPY_LEN, TABLE_LEN};

/// Most sectors in a volume's seed.
const SECTORS_MAX: usize = 160;

/// Seeds of a parser.
pub fn of(name: &str) -> Vec<Vec<u8>> {
    let texts = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    match name {
        "partitions" => partitions(),
        "fve" => fve(),
        "ntfs" => ntfs_volumes().into_iter().map(|(sectors, _)| [&[0], &sectors[..]].concat()).collect(),
        "ntfs-record" => blocks(b"FILE", 1024),
        "ntfs-index" => blocks(b"INDX", 4096),
        "ntfs-runs" => runs(),
        "lznt1" => lznt1(),
        "manifest" => texts(MANIFESTS),
        "logs" => texts(LOGS),
        "csv" => texts(CSV),
        "journal" => texts(JOURNALS),
        "keys" => keys(),
        "rescue-map" => texts(MAPS),
        _ => Vec::new(),
    }
}

/// Seeds without any byte of a foreign volume or program: corpora grown from them may be published.
pub fn own(name: &str) -> Vec<Vec<u8>> {
    match name {
        "partitions" => tables(),
        "ntfs-runs" | "lznt1" | "manifest" | "logs" | "csv" | "journal" | "rescue-map" => of(name),
        "keys" => KEYS.iter().map(|text| text.as_bytes().to_vec()).collect(),
        _ => Vec::new(),
    }
}

/// An image that is deleted on drop.
struct Image(PathBuf);

impl Drop for Image {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn scratch(name: &str) -> Image {
    Image(std::env::temp_dir().join(format!("dray-seeds-{}-{name}", std::process::id())))
}

/// Unpacks a fixture; `None`, with a message, where there is none.
fn unpack(name: &str) -> Option<Image> {
    let name = name.trim_end_matches(".xz").trim_end_matches(".gz");
    let image = scratch(&name.replace('/', "-"));
    dray_fixtures::unpack(name, &image.0).then_some(image)
}

fn partitions() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    // An MBR, by Windows.
    if let Some(image) = unpack("ntfs/ntfs-2m.raw.gz") {
        let mut front = vec![0; 1024];
        if File::open(&image.0).and_then(|mut file| file.read_exact(&mut front)).is_ok() {
            seeds.push([&[0], &front[..]].concat());
        }
    }
    seeds.extend(tables());
    seeds
}

/// Partition tables made by other programs: sfdisk writes both copies of a GPT.
fn tables() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    let image = scratch("gpt");
    let made = File::create(&image.0).and_then(|file| file.set_len(1 << 30));
    let run = |script: &str| {
        let mut child = Command::new("sfdisk")
            .args(["--quiet", "--no-reread", "--no-tell-kernel"])
            .arg(&image.0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        std::io::Write::write_all(&mut child.stdin.take()?, script.as_bytes()).ok()?;
        child.wait().ok().filter(std::process::ExitStatus::success)
    };
    for script in [
        "label: gpt\nsize=16M, type=E3C9E316-0B5C-4DB8-817D-F92DF00215AE\ntype=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7, name=\"Data\"\n",
        "label: dos\nsize=100M, type=7\nsize=300M, type=5\nsize=50M, type=7\nsize=50M, type=c\n",
    ] {
        if made.is_err() || run(script).is_none() {
            eprintln!("SKIPPED judge: no sfdisk to make a partition table with");
            break;
        }
        let file = File::open(&image.0).expect("just made");
        let (mut front, mut end) = (vec![0; TABLE_LEN], vec![0; 33 * 512]);
        let end_at = (1 << 30) - end.len() as u64;
        if file.read_exact_at(&mut front, 0).and_then(|()| file.read_exact_at(&mut end, end_at)).is_ok() {
            seeds.push([&[0], &front[..], &end[..]].concat());
        }
    }
    seeds
}

/// First sector, first metadata copy, description of a conversion, in the parser's form.
fn fve() -> Vec<Vec<u8>> {
    struct Reader(File);
    impl map::ReadAt for Reader {
        fn read_at(&mut self, at: VolumeOffset, buf: &mut [u8]) -> std::io::Result<()> {
            self.0.read_exact_at(buf, at.0)
        }
    }
    let mut seeds = Vec::new();
    for name in [
        "bitlk-aes-xts-128-clearkey-only",
        "bitlk-aes-xts-128-startup-key",
        "bitlk-togo-aes-xts-128",
        "dissect-vista",
        "bitlk-aes-xts-128-eow",
    ] {
        let Some(image) = unpack(&format!("bitlocker/{name}.img.xz")) else { continue };
        let Ok(file) = File::open(&image.0) else { continue };
        let mut reader = Reader(file);
        let Ok(Some(volume)) = bitlocker::Volume::open(&mut reader) else { continue };
        let (mut boot, mut copy) = (vec![0; BOOT_LEN], vec![0; COPY_LEN]);
        let read = reader.0.read_exact_at(&mut boot, 0);
        let read = read.and_then(|()| reader.0.read_exact_at(&mut copy, volume.boot.regions[0].0));
        if read.is_ok() {
            let mut seed = [boot, copy].concat();
            if let Some([block, _]) = volume.boot.conversion {
                let mut progress = vec![0; 4096];
                if reader.0.read_exact_at(&mut progress, block.0).is_ok() {
                    seed.extend(progress);
                }
            }
            seeds.push(seed);
        }
    }
    seeds
}

/// Records the sectors that are read, unless they are zero.
struct Recorder {
    file: File,
    start: u64,
    len: u64,
    seen: std::collections::BTreeMap<u64, Vec<u8>>,
}

impl ReadAt for Recorder {
    fn read_at(&mut self, at: VolumeOffset, buf: &mut [u8]) -> Result<(), ReadError> {
        let failed = |error: std::io::Error| ReadError { at, message: error.to_string() };
        let inside = at.0.checked_add(buf.len() as u64).is_some_and(|end| end <= self.len);
        if !inside {
            return Err(failed(std::io::ErrorKind::UnexpectedEof.into()));
        }
        self.file.read_exact_at(buf, self.start + at.0).map_err(failed)?;
        for number in at.0 / 512..(at.0 + buf.len() as u64).div_ceil(512) {
            let mut sector = vec![0; 512];
            let holds = |sector: &[u8]| sector.iter().any(|byte| *byte != 0) && sector.iter().any(|byte| *byte != 0xFF);
            let read = self.file.read_exact_at(&mut sector, self.start + number * 512).is_ok();
            // $UpCase alone would fill it: capitals are no structure.
            if read && holds(&sector) && self.seen.len() < SECTORS_MAX && buf.len() != 131_072 {
                self.seen.insert(number, sector);
            }
        }
        Ok(())
    }
}

/// Small volumes: the sectors that a reader uses, in the parser's form; and all blocks of them.
fn ntfs_volumes() -> Vec<(Vec<u8>, Vec<Vec<u8>>)> {
    let mut images: Vec<(Image, u64)> = Vec::new();
    for name in ["ntfs/ntfs-ramslack.raw.gz", "ntfs/ntfs-2m.raw.gz"] {
        images.extend(unpack(name).map(|image| (image, 65536)));
    }
    for (name, args) in [("a", ["-s", "512", "-c", "512"]), ("b", ["-s", "4096", "-c", "4096"])] {
        let image = scratch(&format!("mkntfs-{name}"));
        let made = File::create(&image.0).and_then(|file| file.set_len(4 << 20));
        let made = made.is_ok()
            && Command::new("mkntfs")
                .args(["-F", "-Q", "-q", "-p", "0", "-H", "16", "-S", "63", "-L", "seed"])
                .args(args)
                .arg(&image.0)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success());
        if made {
            images.push((image, 0));
        } else {
            eprintln!("SKIPPED judge: no mkntfs to make a volume with");
        }
    }
    let mut volumes = Vec::new();
    for (image, start) in images {
        let Ok(file) = File::open(&image.0) else { continue };
        let len = file.metadata().map_or(0, |meta| meta.len()) - start;
        let mut recorder = Recorder { file, start, len, seen: Default::default() };
        let Ok(volume) = Volume::open(&mut recorder, ByteLen(len)) else { continue };
        if let Ok(catalog) = volume.catalog(&mut recorder) {
            for id in catalog.files() {
                let _ = volume.open_file(&mut recorder, catalog.info(id).id.record);
            }
        }
        let _ = volume.check(&mut recorder);
        let sectors = recorder.seen.iter().flat_map(|(number, bytes)| {
            let number = (*number as u32).to_le_bytes();
            number.into_iter().chain(bytes.iter().copied()).collect::<Vec<_>>()
        });
        let blocks = recorder.seen.iter().filter(|(_, bytes)| matches!(&bytes[..4], b"FILE" | b"INDX"));
        let blocks = blocks.map(|(number, _)| {
            let mut block = vec![0; 4096];
            let _ = recorder.file.read_exact_at(&mut block, start + number * 512);
            block
        });
        volumes.push((sectors.collect(), blocks.collect()));
    }
    volumes
}

/// Records or index blocks of those volumes, some of each.
fn blocks(magic: &[u8; 4], len: usize) -> Vec<Vec<u8>> {
    let all = ntfs_volumes().into_iter().flat_map(|(_, blocks)| blocks);
    all.filter(|block| block.starts_with(magic)).take(60).map(|block| [&[0], &block[..len]].concat()).collect()
}

fn runs() -> Vec<Vec<u8>> {
    let one =
        |lowest: u64, highest: i64, pairs: &[u8]| [&lowest.to_le_bytes()[..], &highest.to_le_bytes(), pairs].concat();
    vec![
        one(0, 171, &[0x22, 0xAC, 0x00, 0x2D, 0x07, 0x00]),
        one(0, 0x37, &[0x11, 0x30, 0x60, 0x21, 0x08, 0x00, 0x01, 0x00]),
        one(0, 31, &[0x11, 0x08, 0x40, 0x01, 0x08, 0x11, 0x10, 0xF8, 0x00]),
        one(16, 79, &[0x01, 0x30, 0x31, 0x10, 0x00, 0x00, 0x08, 0x00]),
    ]
}

fn lznt1() -> Vec<Vec<u8>> {
    // [MS-XCA] 3.3, and chunks that are stored, compressed, and both.
    let example: &[u8] = &[
        0x38, 0xB0, 0x88, 0x46, 0x23, 0x20, 0x00, 0x20, 0x47, 0x20, 0x41, 0x00, 0x10, 0xA2, 0x47, 0x01, 0xA0, 0x45,
        0x20, 0x44, 0x00, 0x08, 0x45, 0x01, 0x50, 0x79, 0x00, 0xC0, 0x45, 0x20, 0x05, 0x24, 0x13, 0x88, 0x05, 0xB4,
        0x02, 0x4A, 0x44, 0xEF, 0x03, 0x58, 0x02, 0x8C, 0x09, 0x16, 0x01, 0x48, 0x45, 0x00, 0xBE, 0x00, 0x9E, 0x00,
        0x04, 0x01, 0x18, 0x90, 0x00,
    ];
    let stored: Vec<u8> = [0xFF, 0x3F].into_iter().chain((0..4096).map(|n| (n * 7) as u8)).collect();
    let repeated: &[u8] = &[0x03, 0xB0, 0x02, 0x61, 0xFC, 0x0F];
    vec![example.to_vec(), stored.clone(), repeated.to_vec(), [repeated, &stored, example].concat()]
}

fn keys() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = KEYS.iter().map(|text| text.as_bytes().to_vec()).collect();
    for name in ["4381F759-C4F8-4DE0-BB61-FC33A831BDA5.BEK", "dissect-recovery-key.bek"] {
        seeds.extend(dray_fixtures::file(&format!("bitlocker/{name}")).and_then(|path| fs::read(path).ok()));
    }
    seeds
}

const MANIFESTS: &[&str] = &[
    r#"<?xml version="1.0" encoding="UTF-8"?>
<DriveManifest Version="2014-11-01"><Drive><DriveId>9WM35C2V</DriveId><ImportCredential>?sv=x</ImportCredential>
<StorageAccountName>a</StorageAccountName><ClientCreator>c</ClientCreator><BlobList><Blob><BlobPath>c/p &amp; q.bin</BlobPath>
<FilePath>\c\p.bin</FilePath><ClientData>d</ClientData><Length>4194305</Length><Snapshot>2016-11-01T00:00:00.0000000Z</Snapshot>
<ImportDisposition>rename</ImportDisposition><BlockList><Block Offset="0" Length="4194304" Id="AAAAAA==" Hash="D863FE44F861AE0DA4DCEAEEFFCCCE68"/>
<Block Offset="4194304" Length="1" Hash="D863FE44F861AE0DA4DCEAEEFFCCCE68"/></BlockList><MetadataPath Hash="D863FE44F861AE0DA4DCEAEEFFCCCE68">\m.xml</MetadataPath>
<PropertiesPath Hash="D863FE44F861AE0DA4DCEAEEFFCCCE68">\p.xml</PropertiesPath></Blob></BlobList></Drive></DriveManifest>"#,
    r#"<DriveManifest Version="2014-11-01"><Drive><DriveId>D</DriveId><BlobList><Blob><BlobPath>c/v.vhd</BlobPath><FilePath>\v</FilePath>
<Length>1024</Length><PageRangeList><PageRange Offset="0" Length="512" Hash="D863FE44F861AE0DA4DCEAEEFFCCCE68"/>
<PageRange Offset="512" Length="512" Hash="00"/></PageRangeList></Blob></BlobList></Drive></DriveManifest>"#,
];

const LOGS: &[&str] = &[
    r#"<?xml version="1.0" encoding="UTF-8"?><DriveLog Version="2014-11-01"><DriveId>9WM35C3U</DriveId><Blob Status="CompletedWithErrors">
<BlobPath>c/a</BlobPath><FilePath>\c\a</FilePath><Length>10</Length><ImportDisposition Status="Created">rename</ImportDisposition>
<PageRangeList><PageRange Offset="0" Length="512" Hash="AA" Status="ReadError"/></PageRangeList>
<MetadataPath Hash="BB" Status="NotFound">\m</MetadataPath></Blob><Status>CompletedWithErrors</Status></DriveLog>"#,
    r#"<DriveLog><DriveId>D</DriveId><Blob><BlobPath>p</BlobPath><BlockList><Block Offset="0" Length="4" Id="AAAA" Hash="00" Status="WriteError"/></BlockList></Blob></DriveLog>"#,
    r#"<ErroredEntity CloudFormat="AppendBlob" Path="c/a (1).nupkg"><Category>UploadErrorCloudHttp</Category><ErrorCode>409</ErrorCode>
<ErrorMessage>m</ErrorMessage><Type>File</Type></ErroredEntity>
<CopyLog Summary="Summary"><Status>CompletedWithErrors</Status><TotalFiles_Blobs>30</TotalFiles_Blobs><FilesErrored>3</FilesErrored></CopyLog>"#,
    r#"<File CloudFormat="BlockBlob" Path="\c\a.bin" Size="3" crc64="0x123"></File>"#,
    r#"<?xml version="1.0" encoding="UTF-8"?><BlobList><BlobPath>$root/a</BlobPath><BlobPathPrefix>/c/x</BlobPathPrefix></BlobList>"#,
    r#"<?xml version="1.0"?><Metadata><UploadMethod>t</UploadMethod><D>1</D></Metadata>"#,
    r#"<Properties><Content-Type>application/octet-stream</Content-Type><Content-MD5>Q2hlY2sgSW50ZWdyaXR5IQ==</Content-MD5></Properties>"#,
];

const CSV: &[&str] = &[
    "BasePath,DstBlobPathOrPrefix,BlobType,Disposition,MetadataFile,PropertiesFile\r\n\"F:\\50M_original\\\",\"containername/\",BlockBlob,rename,\"None\",None\r\n",
    "BasePath,DstItemPathOrPrefix,ItemType,Disposition,MetadataFile,PropertiesFile\n\"/data/a, \"\"b\"\"/\",c/,file,no-overwrite,/m.xml,/p.xml\n# note\n",
    "DriveLetter,FormatOption,SilentOrPromptOnFormat,Encryption,ExistingBitLockerKey\nG,AlreadyFormatted,SilentMode,AlreadyEncrypted,060456-014509-132033-080300-252615-584177-672089-411631\n/dev/sdb,Format,SilentMode,Encrypt,\n",
    "Name,Content-Length,Content-MD5,Last-Modified\nc/a,5,AAAA,2020-01-01T00:00:00Z\n",
];

const MAPS: &[&str] = &[
    "# Mapfile. Created by GNU ddrescue version 1.27\n# Command line: ddrescue -d a b c\n# Finished\n\
     # current_pos  current_status  current_pass\n0x000F4A00     +               1\n#      pos        size  status\n\
     0x00000000  0x00001000  +\n0x00001000  0x00000200  -\n0x00001200  0x000F3000  +\n0x000F4200  0x00000C00  *\n\
     0x000F4E00  0x00894880  /\n",
    "0 ?\n0 512 +\n512 01000 ?\n",
];

const JOURNALS: &[&str] = &[
    "[BeginUpdateRecord][2016/11/02 23:22:25.379][Type:NewJournalFile]\r\nVocabularyVersion: 2013-02-01\r\n[EndUpdateRecord]\r\n\
     [BeginUpdateRecord][2016/11/02 23:22:25.379][Type:ActivityRecord]\r\nActivityId: PrepImportDriveCommandContext\r\nLogDirectory: F:\\logs\r\n[EndUpdateRecord]\r\n",
    "[BeginUpdateRecord][2016/11/01 21:22:25.379][Type:ActivityRecord]\r\nActivityId: DriveInfo\r\nDriveState: [BeginValue]\r\n\
     <Drive><DriveId>9WM35C2V</DriveId><BitLockerKey>238810-662376-448998-450120-652806-203390-606320-483076</BitLockerKey>\
     <ManifestFile>\\DriveManifest.xml</ManifestFile><ManifestHash>D863FE44F861AE0DA4DCEAEEFFCCCE68</ManifestHash>\
     <DriveHeaderHash>0:1:AB</DriveHeaderHash></Drive>\r\n[EndValue]\r\nSaveCommandOutput: Completed\r\n[EndUpdateRecord]\r\n",
    "<DriveList><Drive><DriveId>D</DriveId><BitLockerKey>k</BitLockerKey></Drive></DriveList>",
];

const KEYS: &[&str] = &[
    "235818-357951-253979-013365-241120-245575-342914-591910",
    "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
    "{\"value\":[{\"driveId\":\"D\",\"bitLockerKey\":\"235818-357951-253979-013365-241120-245575-342914-591910\"}]}",
    "<Drive><DriveId>D</DriveId><BitLockerKey>anaconda</BitLockerKey></Drive>",
];
