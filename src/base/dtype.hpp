// Element types of tensors, in memory and in files.
#pragma once

#include <cstdint>
#include <string_view>

namespace rankwise {

enum class DType : std::uint8_t { f32, bf16, f16, f8_e4m3, f64, i32, i64, u8 };

[[nodiscard]] std::int64_t size_of(DType dtype);

/// The safetensors spelling: "F32", "BF16", "F16", "F8_E4M3", "F64", "I32", "I64", "U8".
[[nodiscard]] std::string_view name_of(DType dtype);

/// @throws BadInput for a spelling that is not one of name_of's.
[[nodiscard]] DType dtype_from_name(std::string_view name);

/// bfloat16 bits to float: exact.
[[nodiscard]] float float_from_bf16(std::uint16_t bits);
/// Float to bfloat16, to nearest, ties to even; a NaN stays a (quiet) NaN.
[[nodiscard]] std::uint16_t bf16_from_float(float value);
/// E4M3 bits (four bits of exponent, three of fraction, no infinities) to float: exact.
[[nodiscard]] float float_from_e4m3(std::uint8_t bits);
/// IEEE half-precision bits to float: exact.
[[nodiscard]] float float_from_f16(std::uint16_t bits);

}  // namespace rankwise
