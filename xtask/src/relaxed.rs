//! The worker's second build: the same program with multiplications of vectors whose product is added at once made
//! one instruction, `f32x4.relaxed_madd`, which browsers may round once instead of twice and run in half the time. Made from
//! the first build in a second, where compiling it anew would take minutes.

use std::convert::Infallible;
use std::path::Path;

use anyhow::{Context, anyhow, ensure};
use wasm_encoder::reencode::{Error, Reencode};
use wasm_encoder::{CodeSection, Function, Instruction, Module, ValType};
use wasmparser::{CompositeInnerType, FunctionBody, Operator, Parser, Payload};

/// The worker's wasm as Trunk names it.
const PLAIN: &str = "headlight-worker_bg.wasm";
/// Its second build, as the worker's start script names it.
const RELAXED: &str = "headlight-worker-relaxed_bg.wasm";

/// Writes the second build beside the first.
pub fn build(dist: &Path) -> anyhow::Result<()> {
    let plain = std::fs::read(dist.join(PLAIN)).with_context(|| format!("{PLAIN} cannot be read"))?;
    let (relaxed, n_fused) = fuse(&plain)?;
    ensure!(n_fused > 0, "{PLAIN} has no multiplication and addition to fuse; was it built without simd128?");
    Ok(std::fs::write(dist.join(RELAXED), relaxed)?)
}

/// Fuses every pair of a module; gives their number too.
fn fuse(plain: &[u8]) -> anyhow::Result<(Vec<u8>, usize)> {
    let mut fuser = Fuser { n_params: n_params(plain)?.into_iter(), n_fused: 0 };
    let mut module = Module::new();
    let fused = fuser.parse_core_module(&mut module, Parser::new(0), plain);
    fused.map_err(|error| anyhow!("the worker's wasm cannot be rewritten: {error:?}"))?;
    Ok((module.finish(), fuser.n_fused))
}

/// Parameters of each function of a module's own, in order.
fn n_params(wasm: &[u8]) -> anyhow::Result<Vec<u32>> {
    let (mut of_types, mut of_functions) = (Vec::new(), Vec::new());
    for payload in Parser::new(0).parse_all(wasm) {
        match payload? {
            Payload::TypeSection(groups) => {
                for group in groups {
                    of_types.extend(group?.into_types().map(|of_type| match of_type.composite_type.inner {
                        CompositeInnerType::Func(function) => function.params().len() as u32,
                        _ => 0,
                    }));
                }
            }
            Payload::FunctionSection(types) => {
                for of_type in types {
                    let n_params = of_types.get(of_type? as usize).context("a function of no known type")?;
                    of_functions.push(*n_params);
                }
            }
            _ => {}
        }
    }
    Ok(of_functions)
}

struct Fuser {
    n_params: std::vec::IntoIter<u32>,
    n_fused: usize,
}

impl Reencode for Fuser {
    type Error = Infallible;

    fn parse_function_body(
        &mut self,
        code: &mut CodeSection,
        body: FunctionBody<'_>,
    ) -> Result<(), Error<Infallible>> {
        let mut n_locals = self.n_params.next().unwrap_or_default();
        let mut locals = Vec::new();
        for local in body.get_locals_reader()? {
            let (count, of_type) = local?;
            locals.push((count, self.val_type(of_type)?));
            n_locals += count;
        }
        let mut instructions = Vec::new();
        for operator in body.get_operators_reader()? {
            instructions.push(operator?);
        }
        // On the stack are sum, x and y; the fused instruction wants x, y and sum.
        let is_pair = |pair: &[Operator<'_>]| matches!(pair, [Operator::F32x4Mul, Operator::F32x4Add]);
        if instructions.windows(2).any(is_pair) {
            locals.push((3, ValType::V128));
        }
        let [sum, x, y] = [n_locals, n_locals + 1, n_locals + 2];
        let mut function = Function::new(locals);
        let mut left = instructions.as_slice();
        while let [first, rest @ ..] = left {
            if left.get(..2).is_some_and(is_pair) {
                for local in [y, x, sum] {
                    function.instruction(&Instruction::LocalSet(local));
                }
                for local in [x, y, sum] {
                    function.instruction(&Instruction::LocalGet(local));
                }
                function.instruction(&Instruction::F32x4RelaxedMadd);
                self.n_fused += 1;
                left = &rest[1..];
            } else if let [Operator::F32x4Mul, sum, Operator::F32x4Add, rest @ ..] = left
                && matches!(sum, Operator::LocalGet { .. } | Operator::V128Const { .. })
            {
                // The other way round the sum comes last already.
                function.instruction(&self.instruction(sum.clone())?);
                function.instruction(&Instruction::F32x4RelaxedMadd);
                self.n_fused += 1;
                left = rest;
            } else {
                function.instruction(&self.instruction(first.clone())?);
                left = rest;
            }
        }
        code.function(&function);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use wasm_encoder::{ExportSection, FunctionSection, TypeSection};
    use wasmparser::Validator;

    use super::*;

    /// A module of one function of three vectors, `instructions` long.
    fn module(instructions: &[Instruction<'_>]) -> Vec<u8> {
        let mut types = TypeSection::new();
        types.ty().function([ValType::V128; 3], [ValType::V128]);
        let mut functions = FunctionSection::new();
        functions.function(0);
        let mut exports = ExportSection::new();
        exports.export("f", wasm_encoder::ExportKind::Func, 0);
        let mut code = CodeSection::new();
        let mut function = Function::new([(1, ValType::I32)]);
        for instruction in instructions {
            function.instruction(instruction);
        }
        code.function(function.instruction(&Instruction::End));
        let mut module = Module::new();
        module.section(&types).section(&functions).section(&exports).section(&code);
        module.finish()
    }

    fn instructions(wasm: &[u8]) -> Vec<String> {
        let bodies = Parser::new(0).parse_all(wasm).filter_map(|payload| match payload {
            Ok(Payload::CodeSectionEntry(body)) => Some(body),
            _ => None,
        });
        let operators = bodies.flat_map(|body| body.get_operators_reader().expect("a body"));
        operators.map(|operator| format!("{:?}", operator.expect("an operator"))).collect()
    }

    #[test]
    fn a_product_that_is_added_at_once_is_fused_in_the_right_order() {
        use Instruction::{F32x4Add, F32x4Mul, LocalGet};
        let plain = module(&[LocalGet(0), LocalGet(1), LocalGet(2), F32x4Mul, F32x4Add]);
        let (fused, n_fused) = fuse(&plain).expect("a module");
        assert_eq!(n_fused, 1);
        Validator::new().validate_all(&fused).expect("still valid");
        let get = |local: u32| format!("LocalGet {{ local_index: {local} }}");
        let set = |local: u32| format!("LocalSet {{ local_index: {local} }}");
        // Locals 0 to 2 are parameters, 3 the function's own.
        let wanted = [get(0), get(1), get(2), set(6), set(5), set(4), get(5), get(6), get(4)];
        let wanted = wanted.into_iter().chain(["F32x4RelaxedMadd".to_owned(), "End".to_owned()]);
        assert_eq!(instructions(&fused), wanted.collect::<Vec<_>>());
    }

    #[test]
    fn a_product_to_which_something_is_added_is_fused_too() {
        use Instruction::{F32x4Add, F32x4Mul, LocalGet};
        let plain = module(&[LocalGet(0), LocalGet(1), F32x4Mul, LocalGet(2), F32x4Add]);
        let (fused, n_fused) = fuse(&plain).expect("a module");
        assert_eq!(n_fused, 1);
        Validator::new().validate_all(&fused).expect("still valid");
        let get = |local: u32| format!("LocalGet {{ local_index: {local} }}");
        let wanted = [get(0), get(1), get(2), "F32x4RelaxedMadd".to_owned(), "End".to_owned()];
        assert_eq!(instructions(&fused), wanted);
    }

    #[test]
    fn whatever_else_there_is_stays() {
        use Instruction::{F32x4Add, F32x4Mul, F32x4Sub, LocalGet};
        // The product is not what is added.
        let plain =
            module(&[LocalGet(0), LocalGet(1), LocalGet(2), F32x4Mul, F32x4Sub, LocalGet(2), F32x4Add]);
        let (same, n_fused) = fuse(&plain).expect("a module");
        assert_eq!((instructions(&same), n_fused), (instructions(&plain), 0));
        assert!(fuse(b"no wasm").is_err());
    }
}
