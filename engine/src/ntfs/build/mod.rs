//! A whole NTFS volume as a plan and generators of its bytes.
