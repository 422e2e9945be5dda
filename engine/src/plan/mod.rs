//! Where every byte of every drive goes: a value, computed before the first write.
