// A device of its own for tests, "apart": its memory is the host's and its kernels are the CPU's, but its tensors are not
// a CPU's. As on a GPU, what is computed from tensors of both is an error, and so is a tensor left on the wrong one.
//
// Torch has a place for such devices, PrivateUse1. Kernels that are not registered below come to `on_the_host`, which
// calls the CPU's on tensors over the same memory and gives what it returns anew a memory of the device.

#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/NativeFunctions.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/extension.h>
#include <torch/library.h>

#include <set>

namespace {

using at::Tensor;
using c10::DispatchKeySet;
using c10::IValue;

const c10::Device DEVICE(c10::DeviceType::PrivateUse1, 0);
const DispatchKeySet KEYS(c10::DispatchKey::PrivateUse1);
// How often the host asked for a value: on a GPU it would wait.
int64_t waits = 0;

struct Memory final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    void* place = bytes > 0 ? std::malloc(bytes) : nullptr;
    return {place, place, &std::free, DEVICE};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &std::free; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override { std::memcpy(to, from, bytes); }
};

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return DEVICE.type(); }
  c10::Device exchangeDevice(c10::Device) const override { return DEVICE; }
  c10::Device getDevice() const override { return DEVICE; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device device) const override { return c10::Stream(c10::Stream::DEFAULT, device); }
  c10::Stream exchangeStream(c10::Stream stream) const override { return stream; }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
};

struct Hooks final : at::PrivateUse1HooksInterface {
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
};

Memory memory;
Hooks hooks;
REGISTER_ALLOCATOR(c10::DeviceType::PrivateUse1, &memory);
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

bool is_apart(const Tensor& tensor) { return tensor.defined() && tensor.device() == DEVICE; }

// The same memory as a CPU's tensor. A kernel that resizes it gives it another memory, see `on_the_host`.
Tensor host(const Tensor& tensor) {
  if (!is_apart(tensor)) return tensor;
  const auto storage = tensor.storage();
  c10::DataPtr place(
      storage.mutable_data(), new c10::Storage(storage), [](void* held) { delete static_cast<c10::Storage*>(held); },
      at::kCPU);
  auto view = c10::make_intrusive<c10::StorageImpl>(
      c10::StorageImpl::use_byte_size_t(), storage.nbytes(), std::move(place), at::getCPUAllocator(), true);
  auto made = at::detail::make_tensor<c10::TensorImpl>(
      c10::Storage(view), DispatchKeySet(c10::DispatchKey::CPU), tensor.dtype());
  made.unsafeGetTensorImpl()->set_sizes_and_strides(tensor.sizes(), tensor.strides(), tensor.storage_offset());
  return made;
}

Tensor empty(
    at::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>, std::optional<at::Device>,
    std::optional<bool>, std::optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(size, &memory, KEYS, c10::dtype_or_default(dtype), format);
}

Tensor empty_strided(
    at::IntArrayRef size, at::IntArrayRef stride, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
    std::optional<at::Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(size, stride, &memory, KEYS, c10::dtype_or_default(dtype));
}

// A copy on the device, in the same order of memory.
Tensor apart(const Tensor& tensor) {
  if (!tensor.defined() || is_apart(tensor)) return tensor;
  auto made = tensor.is_non_overlapping_and_dense()
      ? empty_strided(tensor.sizes(), tensor.strides(), tensor.scalar_type(), {}, {}, {})
      : empty(tensor.sizes(), tensor.scalar_type(), {}, {}, {}, {});
  host(made).copy_(tensor);
  return made;
}

Tensor copy_from(const Tensor& self, const Tensor& to, bool) {
  waits += is_apart(self) && !is_apart(to);
  at::AutoDispatchBelowAutograd below;
  host(to).copy_(host(self));
  return to;
}

at::Scalar value_of(const Tensor& self) {
  ++waits;
  return host(self).item();
}

const Tensor& resize(const Tensor& self, at::IntArrayRef size, std::optional<at::MemoryFormat> format) {
  const size_t bytes = c10::multiply_integers(size) * self.itemsize();
  const auto& storage = self.storage();
  if (storage.nbytes() < bytes) {
    auto larger = memory.allocate(bytes);
    std::memcpy(larger.get(), storage.data(), storage.nbytes());
    storage.set_data_ptr_noswap(std::move(larger));
    storage.set_nbytes(bytes);
  }
  self.unsafeGetTensorImpl()->set_sizes_contiguous(size);
  if (format && *format != at::MemoryFormat::Preserve) self.unsafeGetTensorImpl()->empty_tensor_restride(*format);
  return self;
}

Tensor convolution(
    const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, c10::SymIntArrayRef stride,
    c10::SymIntArrayRef padding, c10::SymIntArrayRef dilation, bool transposed, c10::SymIntArrayRef output_padding,
    c10::SymInt groups) {
  const bool biased = bias && bias->defined();
  TORCH_CHECK(is_apart(x) && is_apart(weight) && (!biased || is_apart(*bias)), "convolution: tensors of two devices");
  at::AutoDispatchBelowAutograd below;
  return apart(at::convolution_symint(
      host(x), host(weight), biased ? std::optional<Tensor>(host(*bias)) : std::nullopt, stride, padding, dilation,
      transposed, output_padding, groups));
}

std::tuple<Tensor, Tensor, Tensor> convolution_backward(
    const Tensor& gradient, const Tensor& x, const Tensor& weight, c10::SymIntArrayRef stride,
    c10::SymIntArrayRef padding, c10::SymIntArrayRef dilation, bool transposed, c10::SymIntArrayRef output_padding,
    c10::SymInt groups, std::array<bool, 3> mask) {
  at::AutoDispatchBelowAutograd below;
  const std::vector<c10::SymInt> bias{gradient.sym_size(1)};
  auto [dx, dweight, dbias] = at::convolution_backward_symint(
      host(gradient), host(x), host(weight), c10::OptionalArrayRef<c10::SymInt>(bias), stride, padding, dilation,
      transposed, output_padding, groups, mask);
  return {apart(dx), apart(dweight), apart(dbias)};
}

template <typename Each>
IValue mapped(const IValue& value, Each each) {
  if (value.isTensor()) return each(value.toTensor());
  if (value.isTensorList()) {
    c10::List<Tensor> list;
    for (const Tensor& tensor : value.toTensorVector()) list.push_back(each(tensor));
    return list;
  }
  if (value.isOptionalTensorList()) {
    c10::List<std::optional<Tensor>> list;
    for (const auto& tensor : value.toOptionalTensorVector())
      list.push_back(tensor ? std::optional<Tensor>(each(*tensor)) : std::nullopt);
    return list;
  }
  return value;
}

// Kernels whose result has a size that the host must ask for.
const std::set<std::string> ASKING{"aten::equal", "aten::nonzero", "aten::masked_select", "aten::bincount"};

void on_the_host(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const auto count = schema.arguments().size(), results = schema.returns().size();
  const std::vector<IValue> given(stack->end() - count, stack->end());
  bool here = false, there = false;
  for (size_t i = 0; i < count; ++i) {
    auto& value = (*stack)[stack->size() - count + i];
    if (value.isDevice() && value.toDevice().type() == DEVICE.type()) {
      here = true;
      value = c10::Device(at::kCPU);
    } else if (!given[i].isOptionalTensorList()) {  // indices may lie on the host, as CUDA takes them
      mapped(given[i], [&](const Tensor& tensor) {
        here |= is_apart(tensor);
        there |= tensor.defined() && tensor.dim() > 0 && !is_apart(tensor);
        return tensor;
      });
    }
    value = mapped(value, host);
  }
  TORCH_CHECK(!(here && there), schema.name(), ": tensors of two devices, apart and cpu");
  waits += ASKING.count(schema.name());
  {
    at::AutoDispatchBelowAutograd below;
    op.callBoxed(stack);
  }
  for (size_t i = 0; i < results; ++i) {
    auto& value = (*stack)[stack->size() - results + i];
    const auto* alias = schema.returns()[i].alias_info();
    if (alias == nullptr) {
      if (here) value = mapped(value, apart);
      continue;
    }
    TORCH_CHECK(alias->isWrite(), schema.name(), ": a view that the device has no kernel for");
    for (size_t a = 0; a < count; ++a) {
      const auto* own = schema.arguments()[a].alias_info();
      if (own == nullptr || !(*own == *alias)) continue;
      const Tensor target = given[a].toTensor(), found = value.toTensor();
      if (found.sizes() != target.sizes()) {
        target.resize_(found.sizes());
        host(target).copy_(found);
      }
      value = given[a];
      break;
    }
  }
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&on_the_host>()); }
TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, m) { m.fallback(torch::CppFunction::makeFallthrough()); }
TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", empty);
  m.impl("empty_strided", empty_strided);
  m.impl("_copy_from", copy_from);
  m.impl("_local_scalar_dense", value_of);
  m.impl("resize_", resize);
  m.impl("as_strided", at::native::as_strided_tensorimpl);
  m.impl("view", at::native::view);
  m.impl("_reshape_alias", at::native::_reshape_alias);
  m.impl("unfold", at::native::unfold);
  m.impl("set_.source_Storage", static_cast<Tensor& (*)(Tensor&, at::Storage)>(at::native::set_));
  m.impl("set_.source_Storage_storage_offset", at::native::set_storage_cpu_);
  m.impl("convolution_overrideable", convolution);
  m.impl("convolution_backward_overrideable", convolution_backward);
}

}  // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) {
  at::RegisterPrivateUse1HooksInterface(&hooks);
  module.def("waits", [] { return waits; });
}
