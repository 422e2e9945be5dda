//! Reading NTFS volumes of any origin, without trust.
