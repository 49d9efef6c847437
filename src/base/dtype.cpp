#include "src/base/dtype.hpp"

#include <array>
#include <bit>
#include <cmath>

#include "src/base/error.hpp"

namespace rankwise {
namespace {

struct Row {
    DType dtype;
    std::string_view name;
    std::int64_t size;
};
constexpr std::array<Row, 8> kRows{{{DType::f32, "F32", 4},
                                    {DType::bf16, "BF16", 2},
                                    {DType::f16, "F16", 2},
                                    {DType::f8_e4m3, "F8_E4M3", 1},
                                    {DType::f64, "F64", 8},
                                    {DType::i32, "I32", 4},
                                    {DType::i64, "I64", 8},
                                    {DType::u8, "U8", 1}}};

const Row& row(DType dtype) {
    return kRows.at(static_cast<std::size_t>(dtype));
}

}  // namespace

std::int64_t size_of(DType dtype) {
    return row(dtype).size;
}

std::string_view name_of(DType dtype) {
    return row(dtype).name;
}

DType dtype_from_name(std::string_view name) {
    for (const Row& r : kRows) {
        if (r.name == name) return r.dtype;
    }
    throw BadInput(fmt::format(
        "unknown element type '{}': expected F32, BF16, F16, F8_E4M3, F64, I32, I64 or U8", name));
}

float float_from_bf16(std::uint16_t bits) {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16U);
}

std::uint16_t bf16_from_float(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    if (std::isnan(value)) return static_cast<std::uint16_t>((bits >> 16U) | 0x40U);
    return static_cast<std::uint16_t>((bits + 0x7FFFU + ((bits >> 16U) & 1U)) >> 16U);
}

float float_from_e4m3(std::uint8_t bits) {
    const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x80U) << 24U;
    const std::uint32_t exponent = (bits >> 3U) & 0xFU;
    const std::uint32_t fraction = bits & 7U;
    if (exponent == 0xF && fraction == 7) return std::bit_cast<float>(sign | 0x7FC00000U);
    if (exponent != 0) {
        return std::bit_cast<float>(sign | ((exponent + 120U) << 23U) | (fraction << 20U));
    }
    const float magnitude = static_cast<float>(fraction) * 0x1p-9F;  // a denormal, or zero
    return sign != 0 ? -magnitude : magnitude;
}

float float_from_f16(std::uint16_t bits) {
    const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000U) << 16U;
    const std::uint32_t exponent = (bits >> 10U) & 0x1FU;
    const std::uint32_t fraction = bits & 0x3FFU;
    if (exponent == 0x1F) return std::bit_cast<float>(sign | 0x7F800000U | (fraction << 13U));
    if (exponent != 0) {
        return std::bit_cast<float>(sign | ((exponent + 112U) << 23U) | (fraction << 13U));
    }
    const float magnitude = static_cast<float>(fraction) * 0x1p-24F;  // a denormal, or zero
    return sign != 0 ? -magnitude : magnitude;
}

}  // namespace rankwise
