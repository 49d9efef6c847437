// The order in which a device works.
#pragma once

namespace rankwise::kernels {

/// Ops given to one stream are done in the order given. On the CPU an op is done when its call
/// returns, and a stream holds nothing; a device that queues ops derives its own. Made by
/// Device::make_stream().
class Stream {
  public:
    Stream() = default;
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;
    virtual ~Stream() = default;
};

}  // namespace rankwise::kernels
