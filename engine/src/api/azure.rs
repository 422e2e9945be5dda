//! The files and names of Azure Import/Export.

pub use crate::azure::names::{
    NameError, check_blob, check_container, check_drive_id, check_job as check_job_name, numbered,
};
pub use crate::azure::{Digest, XmlError, XmlStep, XmlSteps, base64, manifest, properties};
