//! The model that the operator has configured, if any.

use ::models::{ModelConfig, Models, Patience};
use kernel::Result;
use store::Store;

use crate::config::Config;

/// The model, and what environments may ask of it. Until they are closed calls under way are looked after.
///
/// # Errors
/// Where the configuration leads to no request.
pub fn models(config: &Config, store: Store) -> Result<Models> {
    let model = &config.model;
    let config = model.base_url.0.clone().map(|base_url| ModelConfig {
        base_url,
        name: model.name.0.clone(),
        api_key: model.api_key.0.clone(),
        template: model.template_tokens.0,
        patience: Patience::default(),
    });
    let models = Models::new(config, model.tokens_of_env.0, store)?;
    let tended = models.clone();
    tokio::spawn(async move { tended.tend().await });
    Ok(models)
}
