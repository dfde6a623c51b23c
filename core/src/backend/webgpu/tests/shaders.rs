//! Every file of WGSL through naga, without a device.

use std::collections::BTreeSet;

use super::super::kernels::{KERNELS, SOURCES};

/// What a driver would refuse on some machine only: checked for every file, without a device.
#[test]
fn every_shader_is_valid_and_its_bindings_are_those_that_the_backend_lays_out() {
    let mut entries = BTreeSet::new();
    for (index, source) in SOURCES.iter().enumerate() {
        let module = naga::front::wgsl::parse_str(source.wgsl)
            .unwrap_or_else(|error| panic!("{}: {}", source.name, error.emit_to_string(source.wgsl)));
        let flags = naga::valid::ValidationFlags::all();
        // Part of WGSL without any feature.
        let every_device = naga::valid::Capabilities::SHADER_FLOAT16_IN_FLOAT32;
        let info = naga::valid::Validator::new(flags, every_device)
            .validate(&module)
            .unwrap_or_else(|error| panic!("{}: {error:?}", source.name));
        for (at, entry) in module.entry_points.iter().enumerate() {
            // Kernels that differ in constants alone have the same bindings.
            let facts = KERNELS.iter().find(|facts| facts.entry == entry.name);
            let facts = facts.unwrap_or_else(|| panic!("no kernel uses {}", entry.name));
            assert_eq!(facts.source, index, "{}", entry.name);
            entries.insert(facts.entry);
            let invocations: u32 = entry.workgroup_size.iter().product();
            assert!(invocations <= 256, "{} has {invocations} invocations", entry.name);
            let used = info.get_entry_point(at);
            for (handle, variable) in module.global_variables.iter() {
                let Some(binding) = &variable.binding else { continue };
                let usage = used[handle];
                if usage.is_empty() {
                    continue;
                }
                let last = facts.n_inputs as u32 + 1;
                match variable.space {
                    naga::AddressSpace::Uniform => assert_eq!(binding.binding, 0),
                    naga::AddressSpace::Storage { access } => {
                        let writes = access.contains(naga::StorageAccess::STORE);
                        assert_eq!(
                            writes,
                            binding.binding == last,
                            "{} binding {}",
                            entry.name,
                            binding.binding
                        );
                        assert!((1..=last).contains(&binding.binding), "{}", entry.name);
                    }
                    space => panic!("{} binds {space:?}", entry.name),
                }
            }
        }
    }
    let known: BTreeSet<_> = KERNELS.iter().map(|facts| facts.entry).collect();
    assert_eq!(entries, known);
    for (index, facts) in KERNELS.iter().enumerate() {
        assert_eq!(facts.kernel as usize, index, "{} stands elsewhere in `Kernel`", facts.entry);
    }
}
