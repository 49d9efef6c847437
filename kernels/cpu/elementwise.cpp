#include "kernels/cpu/cpu_device.hpp"
#include "src/base/error.hpp"

namespace rankwise::kernels::cpu {

void CpuDevice::swiglu(const SwigluArgs& /*args*/, Stream& /*stream*/) {
    throw InternalError("swiglu is not there yet");
}

void CpuDevice::swiglu_backward(const SwigluBackwardArgs& /*args*/, Stream& /*stream*/) {
    throw InternalError("swiglu_backward is not there yet");
}

void CpuDevice::add(const AddArgs& /*args*/, Stream& /*stream*/) {
    throw InternalError("add is not there yet");
}

void CpuDevice::gather_rows(const GatherRowsArgs& /*args*/, Stream& /*stream*/) {
    throw InternalError("gather_rows is not there yet");
}

void CpuDevice::scatter_rows(const ScatterRowsArgs& /*args*/, Stream& /*stream*/) {
    throw InternalError("scatter_rows is not there yet");
}

}  // namespace rankwise::kernels::cpu
