//! The former name of `ddk-backend-sim`, `model-virtio` and `model-virtio-blk`, until nobody uses it.

pub use ddk_backend_sim::{
    DeviceMemory, MemoryError, Payload, SimInterrupt as TestInterrupt, SimPlatform as TestPlatform,
    SimPlatformBuilder as TestPlatformBuilder, SimQueue as TestQueue,
};
pub use model_virtio::{DeviceChain, DeviceLogic, DeviceQueue, Request, Served, VirtioPci};
pub use model_virtio_blk::{BlockModel, BlockModelOptions, Misbehaviour};
