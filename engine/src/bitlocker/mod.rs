//! BitLocker's own bytes: boot sector, metadata regions, protectors, key files; built and read.
