#include "kernels/cpu/cpu_device.hpp"
#include "src/base/error.hpp"

namespace rankwise::kernels::cpu {

void CpuDevice::adamw(const AdamwArgs& /*args*/, Stream& /*stream*/) {
    throw InternalError("adamw is not there yet");
}

void CpuDevice::squared_row_sums(const SquaredRowSumsArgs& /*args*/, Stream& /*stream*/) {
    throw InternalError("squared_row_sums is not there yet");
}

UInt128 CpuDevice::digest(const DigestArgs& /*args*/, Stream& /*stream*/) {
    throw InternalError("digest is not there yet");
}

}  // namespace rankwise::kernels::cpu
